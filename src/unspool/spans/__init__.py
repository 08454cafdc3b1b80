"""Methods that choose among the spans of a given text."""
