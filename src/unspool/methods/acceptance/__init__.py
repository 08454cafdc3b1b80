"""Acceptance rules: which drafted tokens are accepted."""
