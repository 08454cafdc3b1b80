"""Batch plans, one file a method."""
