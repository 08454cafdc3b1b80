"""The trie of a passage's suffixes, the order in which it is scored, and the best spans found."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

from unspool.methods.search.extract.span import ExtractOptions, Span, Suffix

AHEAD = 8
"""Chosen by passes and nodes for questions about documentation on SmolLM2-135M, among 0, 2, 4, 8, 16 and 32."""


class Node:
    """A node of the trie: the suffixes (earliest start first) that begin with the same ``depth`` tokens."""

    def __init__(self, parent: Node | None, depth: int, members: list[Suffix]) -> None:
        self.parent = parent
        self.depth = depth
        self.members = members
        self.logprob = 0.0  # l, of its last token
        self.total = 0.0  # L, of all its tokens
        self.taken = False  # whether it is in a pass

    @property
    def tokens(self) -> tuple[int, ...]:
        return self.members[0].tokens[: self.depth]

    @cached_property
    def children(self) -> dict[int, Node]:
        groups: dict[int, list[Suffix]] = {}
        for suffix in self.members:
            if len(suffix.tokens) > self.depth:
                groups.setdefault(suffix.tokens[self.depth], []).append(suffix)
        return {token: Node(self, self.depth + 1, group) for token, group in groups.items()}

    def logprobs(self) -> list[float]:
        return [] if self.parent is None else [*self.parent.logprobs(), self.logprob]


class Best:
    """The best spans so far, at most one of each content."""

    def __init__(self, passage: Sequence[int] | str, options: ExtractOptions) -> None:
        self._passage = passage if isinstance(passage, str) else tuple(passage)
        self._options = options
        self._kept: dict[object, tuple[float, int, int, tuple[int, ...], Span]] = {}
        self.floor = -math.inf  # the score that a span must reach to be among them

    def score(self, total: float, tokens: int) -> float:
        """The score of a log-probability and the number of predicted tokens, the end included."""
        penalty: float = tokens**self._options.length_penalty
        return total / penalty

    def offer(self, node: Node, end: float) -> None:
        score = self.score(node.total + end, node.depth + 1)
        place = next(((s.start, at) for s in node.members if (at := s.ends[node.depth - 1]) is not None), None)
        if place is None or score == -math.inf or score < self.floor:
            return
        span = Span(*place, node.tokens, (*node.logprobs(), end))
        content, entry = self._passage[slice(*place)], (-score, *place, span.token_ids, span)
        self._kept[content] = min(entry, self._kept.get(content, entry), key=lambda e: e[:4])
        if len(self._kept) > self._options.top_k:
            del self._kept[max(self._kept, key=lambda c: self._kept[c][:4])]
        if len(self._kept) == self._options.top_k:
            self.floor = -max(entry[0] for entry in self._kept.values())

    def spans(self) -> tuple[Span, ...]:
        return tuple(entry[4] for entry in sorted(self._kept.values(), key=lambda e: e[:4]))


class Frontier(Protocol):
    """Nodes to be scored."""

    def peek(self) -> Node | None:
        """The next one; None if there is none."""
        ...

    def pop(self) -> None:
        """Remove the next one."""
        ...

    def scored(self, node: Node) -> None:
        """Called when a node has been scored: the log-probabilities of its children are known."""
        ...


class Everything:
    """The whole trie, suffix by suffix, so that a pass contains whole branches."""

    def __init__(self, root: Node) -> None:
        self._stack = [root]

    def peek(self) -> Node | None:
        return self._stack[-1] if self._stack else None

    def pop(self) -> None:
        self._stack += reversed(self._stack.pop().children.values())

    def scored(self, node: Node) -> None:
        """Does nothing: the children are already queued."""


class BestFirst:
    """The node with the highest bound first, then its only children; skips nodes that cannot be among the best.

    After the first tokens a suffix seldom shares its path with others. So the only child of a node is scored in the
    same pass, up to ``AHEAD`` of them: in a later pass, its beginning would have to be scored again.
    """

    def __init__(self, root: Node, best: Best) -> None:
        self._best = best
        self._heap = [(0.0, 0, root)]
        self._pushed = 0
        self._next: Node | None = None
        self._ahead = 0

    def peek(self) -> Node | None:
        if self._next is not None:
            return self._next
        return self._heap[0][2] if self._heap and -self._heap[0][0] >= self._best.floor else None

    def pop(self) -> None:
        self._ahead = 0 if self._next is None else self._ahead + 1
        node = self._next or heapq.heappop(self._heap)[2]
        node.taken = True
        alone = self._ahead < AHEAD and len(node.children) == 1
        self._next = next(iter(node.children.values())) if alone else None

    def scored(self, node: Node) -> None:
        self._next = None
        for child in node.children.values():
            # The longest span below has the largest divisor, and no total below is higher.
            bound = self._best.score(child.total, max(len(suffix.tokens) for suffix in child.members) + 1)
            if bound > -math.inf and not child.taken:
                self._pushed += 1
                heapq.heappush(self._heap, (-bound, self._pushed, child))
