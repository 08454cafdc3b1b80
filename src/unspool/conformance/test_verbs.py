"""Every registered sampler, search, span search and edit, by its checks."""

from __future__ import annotations

import pytest

from unspool.conformance.check import Check, Row, checked
from unspool.conformance.parametrized import cases
from unspool.engine.method import EDIT, SAMPLER, SEARCH, SPAN


@pytest.mark.parametrize(("row", "check"), cases(EDIT, SAMPLER, SEARCH, SPAN))
def test_method(row: Row, check: Check) -> None:
    checked(row, check)
