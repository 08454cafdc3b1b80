"""A tiny float64 model whose output distribution can be enumerated: the ground truth of the conformance suite.

The next token depends on the last few tokens through a table. A session finds those tokens in a real cache of (token,
position) entries, where entries at the same position add up as they would in attention. So every mistake in cache
handling (an entry missing, kept, stale or at a wrong position) changes the logits.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from unspool.engine.contracts import Ability, Scores, Session
from unspool.engine.taps import Hidden, Taps, check
from unspool.engine.tree import TokenTree
from unspool.errors import UnspoolError

MAX_VOCAB_SIZE = 8
MAX_ORDER = 3


class ToyModel:
    """A language model given by a table of conditional probabilities; a ``LanguageModel``.

    Attributes:
        table: float64, ``order`` axes of length ``vocab_size + 1`` and a last one of length ``vocab_size``. The context
            axes run from the oldest to the newest token; index 0 means no token at that distance, index
            ``t + 1`` means token ``t``. The last axis is the distribution of the next token.
        eos_token_id: the token that ends a text, or None. The model itself gives it no special meaning.
    """

    def __init__(self, table: NDArray[np.float64], eos_token_id: int | None = None, max_length: int = 512) -> None:
        vocab_size = table.shape[-1]
        if not 2 <= vocab_size <= MAX_VOCAB_SIZE:
            raise UnspoolError(f"vocab_size of the toy model must lie in 2..{MAX_VOCAB_SIZE}, not {vocab_size}")
        if not 1 <= table.ndim - 1 <= MAX_ORDER or set(table.shape[:-1]) != {vocab_size + 1}:
            raise UnspoolError(
                f"the toy model's table needs 1..{MAX_ORDER} context axes of length vocab_size + 1, not {table.shape}"
            )
        if (table < 0).any() or not np.allclose(table.sum(axis=-1), 1.0, rtol=0, atol=1e-12):
            raise UnspoolError("every row of the toy model's table must be a probability distribution")
        if eos_token_id is not None and not 0 <= eos_token_id < vocab_size:
            raise UnspoolError(f"eos_token_id of the toy model must lie in 0..{vocab_size - 1}, not {eos_token_id}")
        self.table = table
        self.eos_token_id = eos_token_id
        self._max_length = max_length
        with np.errstate(divide="ignore"):
            self._logits = np.log(table)

    @classmethod
    def random(
        cls,
        seed: int = 0,
        *,
        vocab_size: int = 4,
        order: int = 2,
        floor: float = 0.03,
        eos_token_id: int | None = None,
        max_length: int = 512,
    ) -> ToyModel:
        """A model drawn from a seed.

        Args:
            vocab_size: 2..8.
            order: number of tokens that the next one depends on, 1..3.
            floor: smallest probability in the table, below ``1 / vocab_size``.
            max_length: maximum length of a text in tokens.
        """
        if not 2 <= vocab_size <= MAX_VOCAB_SIZE:
            raise UnspoolError(f"vocab_size of the toy model must lie in 2..{MAX_VOCAB_SIZE}, not {vocab_size}")
        if not 1 <= order <= MAX_ORDER:
            raise UnspoolError(f"order of the toy model must lie in 1..{MAX_ORDER}, not {order}")
        if not 0 <= floor * vocab_size < 1:
            raise UnspoolError(f"floor of the toy model must lie in [0, 1 / vocab_size), not {floor}")
        normal = np.random.default_rng(seed).standard_normal((vocab_size + 1,) * order + (vocab_size,))
        weights = np.exp(1.5 * normal)
        table = floor + (1 - floor * vocab_size) * weights / weights.sum(axis=-1, keepdims=True)
        return cls(table, eos_token_id, max_length)

    def related(self, noise: float, seed: int = 0) -> ToyModel:
        """A model near this one (``noise`` of 0.1) or far from it (3): each row times exp(noise · N(0, 1))."""
        factor = np.exp(noise * np.random.default_rng(seed).standard_normal(self.table.shape))
        weights = self.table * factor
        return ToyModel(weights / weights.sum(axis=-1, keepdims=True), self.eos_token_id, self._max_length)

    @property
    def order(self) -> int:
        """Number of tokens that the next one depends on."""
        return self.table.ndim - 1

    @property
    def vocab_size(self) -> int:
        """Number of tokens, 2..8."""
        return int(self.table.shape[-1])

    @property
    def max_length(self) -> int:
        """Maximum length of prompt and output together, in tokens."""
        return self._max_length

    @property
    def widths(self) -> tuple[int, ...]:
        return ()

    @property
    def abilities(self) -> frozenset[Ability]:
        return frozenset({Ability.HIDDEN_STATES})

    @property
    def layers(self) -> int:
        """1: the layer that looks up the context."""
        return 1

    @property
    def settings(self) -> dict[str, str]:
        """The model's parameters, for traces and calibration."""
        return {
            "backend": "toy",
            "weights": "float64",
            "vocab_size": str(self.vocab_size),
            "order": str(self.order),
        }

    def probabilities(self, tokens: Sequence[int]) -> NDArray[np.float64]:
        """float64 [vocabulary], the distribution of the token after the text ``tokens``; a view of the table."""
        newest = [token + 1 for token in tokens[-self.order :]]
        context = (0,) * (self.order - len(newest)) + tuple(newest)
        return cast("NDArray[np.float64]", self.table[context])

    def distribution(
        self, length: int, prompt: Sequence[int], stop_token: int | None = None
    ) -> dict[tuple[int, ...], float]:
        """The exact distribution of the first ``length`` tokens after ``prompt`` under plain sampling.

        Args:
            length: number of tokens, at least 0. There are up to ``vocab_size ** length`` outputs.
            stop_token: ends an output before ``length``; None: no output ends early.

        Returns:
            Output tokens and their probability, for every output of positive probability.
        """
        outputs: dict[tuple[int, ...], float] = {}
        growing: dict[tuple[int, ...], float] = {(): 1.0}
        for _ in range(length):
            longer: dict[tuple[int, ...], float] = {}
            for output, weight in growing.items():
                for token, p in enumerate(self.probabilities((*prompt, *output))):
                    if p > 0:
                        into = outputs if token == stop_token else longer
                        into[output + (token,)] = weight * float(p)  # noqa: RUF005 (star index needs 3.11)
            growing = longer
        return outputs | growing

    def open(self, taps: Taps | None = None) -> ToySession:
        """An empty session.

        Layer 0 reads the token [vocabulary] as a one-hot vector. The output layer reads the context that indexes the
        table: ``order`` one-hot vectors [order x (vocabulary + 1)], oldest first.
        """
        check(self, taps, "this request")
        return ToySession(self, taps)

    def score_many(
        self,
        sessions: Sequence[Session],
        trees: Sequence[TokenTree],
        rows: Sequence[Sequence[int] | None] | None = None,
    ) -> list[Scores]:
        """One session after the other."""
        wanted = rows if rows is not None else [None] * len(sessions)
        return [session.score(tree, picked) for session, tree, picked in zip(sessions, trees, wanted, strict=True)]

    def logits_of(self, context: tuple[int, ...]) -> NDArray[np.float64]:
        """Log-probabilities [vocabulary] of a row of the table; ``context`` indexes it as described in the class."""
        return cast("NDArray[np.float64]", self._logits[context])


class ToySession:
    """One sequence on a toy model; a ``Session``. It computes from the contents of its cache and checks nothing."""

    def __init__(self, model: ToyModel, taps: Taps | None = None) -> None:
        self.model = model
        self.taps = taps
        self.cache: list[tuple[int, int]] = []  # (token, position), oldest first
        self._scored: list[tuple[int, int]] | None = None  # the same for the nodes of the last scored tree
        self._logits = np.empty((0, model.vocab_size))

    @property
    def length(self) -> int:
        """Number of entries of the cache."""
        return len(self.cache)

    @property
    def max_depth(self) -> int:
        """The rest of the context."""
        return self.model.max_length - self.length

    def positions(self, tree: TokenTree) -> list[int]:
        """Position of every node in the text."""
        length = self.length
        return [length + depth for depth in tree.depths.tolist()]

    def score(self, tree: TokenTree, rows: Sequence[int] | None = None) -> Scores:
        """Logits after each node of ``rows``, float64; their memory is overwritten by the next pass."""
        start = time.perf_counter()
        nodes = tuple(range(len(tree))) if rows is None else tuple(sorted(rows))
        self._scored = list(zip(tree.tokens, self.positions(tree), strict=True))
        if len(self._logits) < len(nodes):
            self._logits = np.empty((len(nodes), self.model.vocab_size))
        for row, node in enumerate(nodes):
            self._logits[row] = self._logits_after(tree, node, self._scored)
        hidden = None if self.taps is None else self._states(tree, nodes, self.taps)
        ms = (time.perf_counter() - start) * 1e3
        return Scores(self._logits[: len(nodes)], nodes, ms, hidden)

    def _states(self, tree: TokenTree, rows: tuple[int, ...], taps: Taps) -> Hidden:
        nodes = range(len(tree)) if taps.positions == "all" else rows
        size, entries = self.model.vocab_size, self._scored or []
        found = {}
        for layer in taps.layers:
            ids = [[tree.tokens[node]] if layer == 0 else self._context(tree, node, entries) for node in nodes]
            width = size if layer == 0 else size + 1
            found[layer] = np.array([np.eye(width, dtype=np.float32)[one].ravel() for one in ids], np.float32)
        return found

    def _logits_after(self, tree: TokenTree, node: int, entries: Sequence[tuple[int, int]]) -> NDArray[np.float64]:
        return self.model.logits_of(tuple(self._context(tree, node, entries)))

    def _context(self, tree: TokenTree, node: int, entries: Sequence[tuple[int, int]]) -> list[int]:
        order, size = self.model.order, self.model.vocab_size + 1
        oldest = entries[node][1] - (order - 1)
        context = [0] * order
        for token, position in (*self.cache, *(entries[i] for i in tree.path(node))):
            slot = position - oldest
            if 0 <= slot < order:
                context[slot] = (context[slot] + token + 1) % size
        return context

    def commit(self, path: Sequence[int]) -> None:
        """Keep the entries of these nodes of the last scored tree.

        Raises:
            RuntimeError: if no tree was scored since the last commit or rewind.
        """
        if self._scored is None:
            raise RuntimeError("commit needs a tree scored since the last commit or rewind")
        self.cache.extend(self._scored[node] for node in path)
        self._scored = None

    def rewind(self, length: int) -> None:
        """Forget everything after the first ``length`` tokens."""
        del self.cache[length:]
        self._scored = None

    def fork(self) -> ToySession:
        """An independent copy."""
        twin = self.model.open(self.taps)
        twin.cache = list(self.cache)
        return twin

    def close(self) -> None:
        """Forget the cache."""
        self.cache.clear()
        self._scored = None


@dataclass(frozen=True)
class ToyConfig:
    """The keys of ``toy.json``; they are the arguments of ``ToyModel.random``."""

    seed: int = 0
    vocab_size: int = 4
    order: int = 2
    floor: float = 0.03
    eos_token_id: int | None = None
    max_length: int = 512


class ToyBackend:
    """Loads toy models from a directory with a ``toy.json``; a ``Backend``."""

    name = "toy"

    def load(self, directory: Path, **options: Any) -> ToyModel:
        """The model that ``toy.json`` describes; ``options`` are keys of that file and override it.

        Raises:
            UnspoolError: if the file is missing or broken, or a key is unknown.
        """
        path = directory / "toy.json"
        if not path.is_file():
            raise UnspoolError(f'{directory} is not a toy model: it needs a toy.json such as {{"seed": 0, "order": 2}}')
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UnspoolError(f"{path} is not valid JSON: {error}") from error
        if not isinstance(values, dict):
            raise UnspoolError(f"{path} must contain one JSON object")
        values |= options
        known = {field.name for field in fields(ToyConfig)}
        if unknown := sorted(set(values) - known):
            raise UnspoolError(f"unknown toy model option {unknown[0]!r}; known: {', '.join(sorted(known))}")
        try:
            config = ToyConfig(**values)
            return ToyModel.random(**vars(config))
        except (TypeError, ValueError) as error:
            raise UnspoolError(f"{path} has an invalid value: {error}") from error
