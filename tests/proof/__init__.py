"""Tests of what proves that methods keep their promises."""
