"""Every check of every registered method as parameters of a test."""

from __future__ import annotations

from typing import Any

import pytest

from unspool import methods
from unspool.conformance.check import checks
from unspool.engine.method import Kind


def cases(*kinds: Kind[Any]) -> list[Any]:
    """Parameters ``row`` and ``check``, for the methods of these kinds, installed ones among them."""
    return [
        pytest.param(row, check, id=f"{row.name}-{check.__name__}")
        for row in methods.of_kind(*kinds)
        for check in checks(row)
    ]
