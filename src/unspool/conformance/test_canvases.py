"""Every registered part of the denoise loop, by its checks."""

from __future__ import annotations

import pytest

from unspool.conformance.check import Check, Row, checked
from unspool.conformance.parametrized import cases
from unspool.engine.method import SCHEDULE, STOP, TRANSFORM, UNMASK


@pytest.mark.parametrize(("row", "check"), cases(SCHEDULE, STOP, TRANSFORM, UNMASK))
def test_method(row: Row, check: Check) -> None:
    checked(row, check)
