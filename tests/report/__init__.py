"""Tests of the report, and results made up for them."""
