"""Retrieved continuations, and the tree of the most frequent of their prefixes."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unspool.engine.tree import TokenTree, TreeBuilder
from unspool.methods.drafters._datastore.suffix_array import SEPARATOR

MAX_BUCKET = 15
"""Length of match from which all matches share one bucket."""


@dataclass(frozen=True)
class Continuations:
    """What followed one suffix of the text in one source.

    Attributes:
        source: name of the source, for the nodes of a tree.
        matched: tokens of the suffix.
        rows: int32 [occurrences, length] in lexicographic order; shorter ones are padded with ``SEPARATOR``.
        weight: of a token that every occurrence continues with.
    """

    source: str
    matched: int
    rows: NDArray[np.int32]
    weight: float

    @classmethod
    def of(cls, source: str, matched: int, rows: NDArray[np.int32]) -> Continuations:
        """Weighted by the length of the match: of two sources the longer match comes first."""
        return cls(source, matched, rows[np.lexsort(rows.T[::-1])], float(matched))

    @property
    def firsts(self) -> NDArray[np.int32]:
        """The distinct first tokens, ascending."""
        tokens = np.unique(self.rows[:, 0])
        firsts: NDArray[np.int32] = tokens[tokens != SEPARATOR]
        return firsts

    def only(self, firsts: Sequence[int]) -> Continuations:
        """Those that begin with one of ``firsts``. Weights are unchanged: the others still count as occurrences."""
        rows = self.rows[np.isin(self.rows[:, 0], firsts)]
        share = len(rows) / len(self.rows) if len(self.rows) else 0.0
        return Continuations(self.source, self.matched, rows, self.weight * share)


def most_frequent(root: int, sources: Sequence[Continuations], limit: int) -> TokenTree:
    """The tree of the ``limit`` prefixes of continuations with the largest weight; ties go to shallow ones.

    The weight of a prefix is, summed over sources, the source's weight times the share of its rows that begin with it.
    At equal depth and weight, the first source comes first, then lower ids. The bucket is the length of the match.
    """
    builder = TreeBuilder(root)
    # An entry: -weight, depth, order of arrival, parent, token, and for each source the range of rows with the prefix.
    heap: list[tuple[float, int, int, int, int, list[tuple[int, int]]]] = []
    order = 0

    def reach(node: int, depth: int, ranges: list[tuple[int, int]]) -> None:
        nonlocal order
        found: dict[int, tuple[float, list[tuple[int, int]]]] = {}
        for i, (source, (low, high)) in enumerate(zip(sources, ranges, strict=True)):
            if depth >= source.rows.shape[1]:
                continue
            column = source.rows[low:high, depth]
            bounds = [0, *(np.flatnonzero(np.diff(column)) + 1).tolist(), len(column)] if len(column) else []
            for start, end in itertools.pairwise(bounds):
                token = int(column[start])
                if token == SEPARATOR:
                    continue
                weight, held = found.get(token, (0.0, [(0, 0)] * len(sources)))
                held[i] = (low + start, low + end)
                found[token] = (weight + source.weight * ((end - start) / len(source.rows)), held)
        for token, (weight, held) in found.items():
            order += 1
            heapq.heappush(heap, (-weight, depth, order, node, token, held))

    reach(0, 0, [(0, len(source.rows)) for source in sources])
    while heap and len(builder) <= limit:
        _, depth, _, parent, token, ranges = heapq.heappop(heap)
        holders = [source for source, (low, high) in zip(sources, ranges, strict=True) if low < high]
        bucket = min(MAX_BUCKET, max(source.matched for source in holders))
        reach(builder.add(parent, token, holders[0].source, bucket), depth + 1, ranges)
    return builder.build()
