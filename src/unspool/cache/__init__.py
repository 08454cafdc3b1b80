"""Methods that keep, edit or thin out a session's cache."""
