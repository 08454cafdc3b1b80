"""Batch plans on the toy model and on tiny torch models."""
