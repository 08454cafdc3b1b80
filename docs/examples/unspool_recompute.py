"""An example of a third-party backend: any function from a text to logits, scored without a cache.

A session keeps the committed tokens and computes every node anew from its whole text. That is slow and right: a real
backend keeps keys and values instead, and must give the same numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unspool.backends.toy import ToyBackend
from unspool.engine.contracts import Ability, Logits, Scores, Session
from unspool.engine.taps import Taps, check
from unspool.engine.tree import TokenTree


class RecomputeModel:
    """A ``LanguageModel``.

    Args:
        next_logits: gives the logits [vocabulary] of the token after a text of at least one token.
        vocab_size: length of such a row.
        max_length: longest text in tokens.
    """

    abilities: frozenset[Ability] = frozenset()
    widths: tuple[int, ...] = ()
    layers = 0

    def __init__(self, next_logits: Callable[[Sequence[int]], Logits], vocab_size: int, max_length: int) -> None:
        self.next_logits = next_logits
        self.vocab_size = vocab_size
        self.max_length = max_length
        self.settings = {"backend": "recompute"}

    def open(self, taps: Taps | None = None) -> RecomputeSession:
        check(self, taps, "this request")
        return RecomputeSession(self, [])

    def score_many(
        self,
        sessions: Sequence[Session],
        trees: Sequence[TokenTree],
        rows: Sequence[Sequence[int] | None] | None = None,
    ) -> list[Scores]:
        wanted = [None] * len(trees) if rows is None else rows
        return [session.score(tree, row) for session, tree, row in zip(sessions, trees, wanted, strict=True)]


class RecomputeSession:
    """A ``Session``: the committed tokens of one sequence."""

    def __init__(self, model: RecomputeModel, tokens: list[int]) -> None:
        self.model = model
        self.tokens = tokens
        self.scored: TokenTree | None = None

    @property
    def length(self) -> int:
        return len(self.tokens)

    @property
    def max_depth(self) -> int:
        return self.model.max_length - len(self.tokens)

    def score(self, tree: TokenTree, rows: Sequence[int] | None = None) -> Scores:
        start = time.perf_counter()
        nodes = tuple(range(len(tree))) if rows is None else tuple(sorted(rows))
        logits = np.empty((len(nodes), self.model.vocab_size))
        for row, node in enumerate(nodes):
            logits[row] = self.model.next_logits([*self.tokens, tree.tokens[0], *tree.path_tokens(node)])
        self.scored = tree
        return Scores(logits, nodes, (time.perf_counter() - start) * 1000)

    def commit(self, path: Sequence[int]) -> None:
        if self.scored is None:
            raise RuntimeError("commit needs a tree that was scored since the last commit or rewind")
        self.tokens += [self.scored.tokens[node] for node in path]
        self.scored = None

    def rewind(self, length: int) -> None:
        del self.tokens[length:]
        self.scored = None

    def fork(self) -> RecomputeSession:
        return RecomputeSession(self.model, list(self.tokens))

    def close(self) -> None:
        self.tokens = []
        self.scored = None


class RecomputeBackend:
    """A ``Backend``: here over the tables of a directory with a ``toy.json``, which stand for a real model."""

    name = "recompute"

    def load(self, directory: Path, **options: Any) -> RecomputeModel:
        table = ToyBackend().load(directory, **options)
        return RecomputeModel(lambda text: np.log(table.probabilities(text)), table.vocab_size, table.max_length)
