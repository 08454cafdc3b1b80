"""unspool inside other libraries."""
