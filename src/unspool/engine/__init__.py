"""The loops and what they share. Knows no method and no backend by name."""
