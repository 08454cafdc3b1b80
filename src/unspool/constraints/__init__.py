"""Constraints: which tokens may follow, or fill a canvas."""
