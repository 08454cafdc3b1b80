"""The registered methods under the checks that the wheel brings; which of them run together is up to the rooms."""

from unspool.conformance.test_canvases import test_method as test_canvas
from unspool.conformance.test_slots import test_method as test_slot
from unspool.conformance.test_verbs import test_method as test_verb

__all__ = ["test_canvas", "test_slot", "test_verb"]
