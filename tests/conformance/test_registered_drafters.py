"""The registered drafters under the checks that the wheel brings."""

from unspool.conformance.test_drafters import test_method

__all__ = ["test_method"]
