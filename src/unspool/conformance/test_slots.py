"""Every registered acceptance rule, batch plan, shaper and constraint, by its checks."""

from __future__ import annotations

import pytest

from unspool.conformance.check import Check, Row, checked
from unspool.conformance.parametrized import cases
from unspool.engine.method import ACCEPTANCE, BATCH, CONSTRAINT, SHAPER


@pytest.mark.parametrize(("row", "check"), cases(ACCEPTANCE, BATCH, CONSTRAINT, SHAPER))
def test_method(row: Row, check: Check) -> None:
    checked(row, check)
