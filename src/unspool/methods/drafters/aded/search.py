"""ADED's tree search in the trigram table (see ``aded``)."""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Iterator
from itertools import accumulate
from typing import NamedTuple

from unspool.methods.drafters.aded.table import TrigramTable

LEVELS = 3
"""Levels of the search: a path has four pairs of tokens, including the root's."""

_KEPT = 24  # most visited prefixes, including the empty one
_C1, _C2 = 32.0, 8.0  # constants of PUCT


class _Successors:
    """What may follow a pair of tokens, highest value first; ``cumulated`` are the running sums of the values."""

    __slots__ = ("cumulated", "ids", "values")

    def __init__(self, found: list[tuple[int, float]]) -> None:
        self.ids = [token for token, _ in found]
        self.values = [value for _, value in found]
        self.cumulated: list[float] = []


class _Node:
    """A node of the search. Keeps what PUCT reads of the children in lists."""

    __slots__ = ("children", "explore", "mean", "pair", "score", "successors", "visits")

    def __init__(self, pair: tuple[int, int], successors: _Successors) -> None:
        self.pair = pair
        self.successors = successors
        self.visits = 0
        self.score = 0.0
        self.children: list[_Node] = []  # those visited: the first ones of the successors
        self.mean: list[float] = []  # of each child: score / visits
        self.explore: list[float] = []  # of each child: p / (1 + visits)


_UNKNOWN = _Successors([])  # of the deepest nodes, whose successors the search never needs


class Draft(NamedTuple):
    """A node to draft.

    Attributes:
        path: the tokens from the root to it, its own last.
        share: of its parent's visits, 0 to 1.
        value: of its trigram in the table.
    """

    path: tuple[int, ...]
    share: float
    value: float


class Search:
    """One tree search from a pair of tokens."""

    def __init__(self, table: TrigramTable, pair: tuple[int, int], uniform: Iterator[float]) -> None:
        self._table = table
        self._uniform = uniform
        self._known: dict[tuple[int, int], _Successors] = {}
        self.root = _Node(pair, self._after(pair))

    def _after(self, pair: tuple[int, int]) -> _Successors:
        """The successors of a pair; the table does not change during a search."""
        known = self._known.get(pair)
        if known is None:
            known = self._known[pair] = _Successors(self._table.successors(*pair))
        return known

    def run(self, iterations: int) -> None:
        """Select, expand, roll out and score."""
        # (c1 + ln((N + c2 + 1) / c2)) sqrt(N) by the parent's visits N.
        weights = [(_C1 + math.log((n + _C2 + 1) / _C2)) * math.sqrt(n) for n in range(iterations)]
        for _ in range(iterations):
            node, score = self.root, 1.0
            trail: list[tuple[_Node, int]] = []
            while node.children and len(trail) < LEVELS:
                at = self._select(node, weights[node.visits], len(trail))
                trail.append((node, at))
                score += node.successors.values[at]
                node = node.children[at]
            if len(trail) < LEVELS and node.successors.ids:
                self._visit(node, len(trail))
                trail.append((node, 0))
                score += node.successors.values[0]
                node = node.children[0]
            if len(trail) < LEVELS:
                score += self._roll_out(node, LEVELS - len(trail))
            _credit(node, trail, score)

    def _select(self, node: _Node, weight: float, level: int) -> int:
        """The child with the largest PUCT value; unvisited children come first."""
        count = len(node.children)
        if count < len(node.successors.ids):
            self._visit(node, level)
            return count
        values = [mean + weight * explore for mean, explore in zip(node.mean, node.explore, strict=True)]
        return values.index(max(values))

    def _visit(self, node: _Node, level: int) -> None:
        """Create the next child of a node at this level, 0 at the root."""
        pair = node.pair[1], node.successors.ids[len(node.children)]
        node.children.append(_Node(pair, self._after(pair) if level + 1 < LEVELS else _UNKNOWN))
        node.mean.append(0.0)
        node.explore.append(0.0)

    def _roll_out(self, node: _Node, steps: int) -> float:
        """Sum of the values of up to ``steps`` successors, each drawn in proportion to its value."""
        pair, successors, total = node.pair, node.successors, 0.0
        for left in range(steps, 0, -1):
            if not successors.ids:
                break
            if not successors.cumulated:
                successors.cumulated = list(accumulate(successors.values))
            cumulated = successors.cumulated
            drawn = min(bisect(cumulated, next(self._uniform) * cumulated[-1]), len(cumulated) - 1)
            total += successors.values[drawn]
            if left > 1:
                pair = pair[1], successors.ids[drawn]
                successors = self._after(pair)
        return total

    def drafts(self) -> list[Draft]:
        """The most visited prefixes, each with the best successor of its last pair, by visits."""
        found: list[tuple[float, Draft]] = []  # visits, draft
        for visits, path, parent, at in self._prefixes()[: _KEPT - 1]:
            found.append((visits, Draft(path, visits / parent.visits, parent.successors.values[at])))
            child = parent.children[at]
            successors = self._after(child.pair)
            if successors.ids:
                share = successors.values[0] / sum(successors.values)
                reached = child.children[0].visits if child.children else visits * share
                found.append((reached, Draft((*path, successors.ids[0]), reached / visits, successors.values[0])))
        # Stable: among equals parents come before their children.
        found.sort(key=lambda draft: -draft[0])
        return list({draft.path: draft for _, draft in found}.values())

    def _prefixes(self) -> list[tuple[int, tuple[int, ...], _Node, int]]:
        """Visits, path, parent and position among siblings of every node but the root, by visits."""
        prefixes: list[tuple[int, tuple[int, ...], _Node, int]] = []
        level: list[tuple[tuple[int, ...], _Node]] = [((), self.root)]
        while level:
            below = []
            for path, node in level:
                for at, child in enumerate(node.children):
                    below.append(((*path, child.pair[1]), child))
                    prefixes.append((child.visits, below[-1][0], node, at))
            level = below
        # Stable: among equals parents come before their children, and better successors before worse.
        return sorted(prefixes, key=lambda prefix: -prefix[0])


def _credit(leaf: _Node, trail: list[tuple[_Node, int]], score: float) -> None:
    """Add a visit and a score to the leaf and all its ancestors."""
    leaf.visits += 1
    leaf.score += score
    for parent, at in reversed(trail):
        child = parent.children[at]
        parent.mean[at] = child.score / child.visits
        parent.explore[at] = parent.successors.values[at] / (1 + child.visits)
        parent.visits += 1
        parent.score += score
