"""Every registered drafter, by its checks."""

from __future__ import annotations

import pytest

from unspool.conformance.check import Check, Row, checked
from unspool.conformance.parametrized import cases
from unspool.engine.method import DRAFTER


@pytest.mark.parametrize(("row", "check"), cases(DRAFTER))
def test_method(row: Row, check: Check) -> None:
    checked(row, check)
