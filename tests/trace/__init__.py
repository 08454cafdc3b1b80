"""Tests of the viewer and of what it reads."""
