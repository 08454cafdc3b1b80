"""Integrations of unspool into other libraries."""
