"""Token trees: what a drafter proposes and what a backend scores in one pass.

Node 0, the root, is the newest committed token, which is not in the cache yet. Every other node is a draft token.
A chain is a tree too; plain decoding is the tree of the root only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

POINT_MASS = -1
"""Draft handle of a node that was chosen deterministically, not drawn (retrieval, top-k, n-gram)."""


@dataclass(frozen=True)
class DraftDistribution:
    """The distribution that the children of one node were drawn from.

    Attributes:
        q: float64 [vocabulary], probabilities before the first draw.
        replacement: True if siblings are independent draws, False if each draw removed its token from ``q``.
    """

    q: NDArray[np.float64]
    replacement: bool


@dataclass(frozen=True)
class TokenTree:
    """Parallel arrays over ``n`` nodes in topological order; among siblings, index order is draw order.

    Attributes:
        tokens: token id per node.
        parents: parent index per node; ``parents[0] == -1`` and ``parents[i] < i``.
        sources: per node, its drafter as an index into ``source_names``; the root's is 0.
        source_names: names of the drafters; ``source_names[0]`` is ``"root"``.
        drafts: per node, ``POINT_MASS`` or an index into ``distributions`` (what its siblings were drawn from).
        distributions: the draft distributions that ``drafts`` points to.
        buckets: per node, a small integer for the drafter's confidence (match length, rank among siblings). Acceptance
            is learned per source, bucket and depth. Not comparable across drafters.
        width: minimum width to which a padding backend pads this pass; affects only time.
    """

    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    sources: tuple[int, ...] = ()
    source_names: tuple[str, ...] = ("root", "draft")
    drafts: tuple[int, ...] = ()
    distributions: tuple[DraftDistribution, ...] = field(default=(), repr=False)
    buckets: tuple[int, ...] = ()
    width: int = 0

    def __post_init__(self) -> None:
        n = len(self.tokens)
        if not n or len(self.parents) != n or self.parents[0] != -1:
            raise ValueError("a token tree needs a root (node 0, parent -1) and one parent per token")
        if any(not 0 <= parent < node for node, parent in enumerate(self.parents) if node):
            raise ValueError("parents must come before their children")
        if not self.sources:
            object.__setattr__(self, "sources", (0,) + (1,) * (n - 1))
        if not self.drafts:
            object.__setattr__(self, "drafts", (POINT_MASS,) * n)
        if not self.buckets:
            object.__setattr__(self, "buckets", (0,) * n)
        if not len(self.sources) == len(self.drafts) == len(self.buckets) == n:
            raise ValueError("sources, drafts and buckets need one entry per node")

    def __len__(self) -> int:
        return len(self.tokens)

    @classmethod
    def chain(cls, tokens: Iterable[int], source: str = "draft") -> TokenTree:
        """A tree without branches, the first token as its root."""
        ids = tuple(tokens)
        return cls(ids, tuple(range(-1, len(ids) - 1)), source_names=("root", source))

    @cached_property
    def children(self) -> tuple[tuple[int, ...], ...]:
        """Children of every node in draw order."""
        lists: list[list[int]] = [[] for _ in self.tokens]
        for node, parent in enumerate(self.parents):
            if node:
                lists[parent].append(node)
        return tuple(map(tuple, lists))

    @cached_property
    def depths(self) -> NDArray[np.int64]:
        """Depth of every node, [n]; 0 for the root. Position in the text = committed length + depth."""
        depths = [0] * len(self.tokens)
        for node, parent in enumerate(self.parents):
            if node:
                depths[node] = depths[parent] + 1
        return np.array(depths, dtype=np.int64)

    @cached_property
    def ancestors(self) -> NDArray[np.bool_]:
        """Attention mask [n, n]: each node attends to itself and its ancestors, never to siblings or cousins."""
        n = len(self.tokens)
        if self.is_chain:
            return np.tri(n, dtype=np.bool_)
        mask = np.zeros((n, n), dtype=np.bool_)
        for node, parent in enumerate(self.parents):
            if node:
                mask[node] = mask[parent]
            mask[node, node] = True
        return mask

    @cached_property
    def is_chain(self) -> bool:
        return all(parent == node - 1 for node, parent in enumerate(self.parents))

    def path(self, node: int) -> list[int]:
        """Node indices from the root to ``node``, both included."""
        nodes = []
        while node >= 0:
            nodes.append(node)
            node = self.parents[node]
        return nodes[::-1]

    def path_tokens(self, node: int) -> list[int]:
        """Draft tokens from below the root to ``node``; empty for the root, whose token is committed."""
        return [self.tokens[i] for i in self.path(node)[1:]]

    def truncated(self, depth: int) -> TokenTree:
        """The nodes up to ``depth``. Cuts whole sibling groups, so it is safe for drawn trees too."""
        if int(self.depths.max()) <= depth:
            return self
        keep = [i for i, d in enumerate(self.depths) if d <= depth]
        index = {old: new for new, old in enumerate(keep)}
        return TokenTree(
            tuple(self.tokens[i] for i in keep),
            tuple(index[self.parents[i]] if i else -1 for i in keep),
            tuple(self.sources[i] for i in keep),
            self.source_names,
            tuple(self.drafts[i] for i in keep),
            self.distributions,
            tuple(self.buckets[i] for i in keep),
        )


class TreeBuilder:
    """Builds a tree node by node. Equal children of one parent are merged and keep the first source and draw."""

    def __init__(self, root: int) -> None:
        self.tokens = [root]
        self.parents = [-1]
        self.sources = [0]
        self.drafts = [POINT_MASS]
        self.buckets = [0]
        self._names = ["root"]
        self._distributions: list[DraftDistribution] = []
        self._child: dict[tuple[int, int], int] = {}

    def __len__(self) -> int:
        return len(self.tokens)

    def child(self, parent: int, token: int) -> int | None:
        """The child of ``parent`` with this token, if there is one."""
        return self._child.get((parent, token))

    def drawn_from(self, distribution: DraftDistribution | None) -> int:
        """The handle for ``add`` of children drawn from ``distribution``; None: chosen, not drawn."""
        if distribution is None:
            return POINT_MASS
        self._distributions.append(distribution)
        return len(self._distributions) - 1

    def add(self, parent: int, token: int, source: str, bucket: int = 0, draft: int = POINT_MASS) -> int:
        """Add a child, or return the existing one with this token. Add drawn siblings in draw order.

        Args:
            draft: handle from ``drawn_from`` if the token was drawn.
        """
        known = self._child.get((parent, token))
        if known is not None:
            return known
        if source not in self._names:
            self._names.append(source)
        self.tokens.append(int(token))
        self.parents.append(parent)
        self.sources.append(self._names.index(source))
        self.drafts.append(draft)
        self.buckets.append(bucket)
        self._child[parent, token] = node = len(self.tokens) - 1
        return node

    def build(self) -> TokenTree:
        return TokenTree(
            tuple(self.tokens),
            tuple(self.parents),
            tuple(self.sources),
            tuple(self._names),
            tuple(self.drafts),
            tuple(self._distributions),
            tuple(self.buckets),
        )
