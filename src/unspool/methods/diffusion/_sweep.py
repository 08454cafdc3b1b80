"""Settings of canvas methods that ``unspool tradeoff`` measures, for the rows of the methods."""

from __future__ import annotations

from collections.abc import Iterable

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
"""Probability thresholds, from nearly everything at once to nearly one token per step."""


def at(values: Iterable[object], spec: str) -> tuple[str, ...]:
    """The spec with each of the values in place of ``{}``."""
    return tuple(spec.format(value) for value in values)
