"""Few combinations of many options."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations, product
from typing import Any


def pairwise(*axes: Iterable[Any]) -> list[tuple[Any, ...]]:
    """Combinations in which any two values of different axes meet.

    A test of all of them sees a fault of one option, or of two that do not go together. The full product, which is many
    times larger, adds faults that need three.
    """
    values = [list(axis) for axis in axes]
    indices = list(product(*(range(len(axis)) for axis in values)))
    pairs = {index: {(a, b, index[a], index[b]) for a, b in combinations(range(len(axes)), 2)} for index in indices}
    missing = set().union(*pairs.values())
    chosen = []
    while missing:
        # The first of the best ones, so that the choice is the same each time.
        best = max(indices, key=lambda index: len(pairs[index] & missing))
        chosen.append(best)
        missing -= pairs[best]
    return [tuple(axis[i] for axis, i in zip(values, index, strict=True)) for index in chosen]
