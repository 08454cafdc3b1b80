"""Denoisers without weights: exact conditional marginals of list tasks, and arbitrary logits that follow the canvas."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from unspool.engine.canvas import CanvasScores, CanvasSession, Fed

Marginals = Callable[[NDArray[np.int64]], NDArray[np.float64]]
"""From the slots to probabilities [slots, vocabulary without the mask]."""


class MockSession:
    """Keeps what it was fed, as a cache of keys would: what is not fed again stays as old as it was."""

    def __init__(self, model: MockModel) -> None:
        self._model = model
        self._stored: NDArray[np.int64] | None = None
        self.fed: list[Fed] = []
        self.closed = False

    def score(self, fed: Fed) -> CanvasScores:
        assert not self.closed
        if self._stored is None:
            assert (fed.start, fed.stop) == (0, len(fed.tokens)), "the first pass must feed everything"
            self._stored = fed.tokens.copy()
        self._stored[fed.start : fed.stop] = fed.tokens[fed.start : fed.stop]
        self.fed.append(Fed(fed.tokens.copy(), fed.start, fed.stop))
        return CanvasScores(fed.start, self._model.logits(self._stored)[fed.start : fed.stop], 1.0)

    def close(self) -> None:
        self.closed = True


class MockModel:
    """A ``Denoiser`` whose mask is the last id of its vocabulary."""

    max_length = 256
    settings = {"backend": "mock"}  # noqa: RUF012

    def __init__(self, vocab_size: int, eos_token_id: int | None = None) -> None:
        self.vocab_size = vocab_size
        self.mask_id = vocab_size - 1
        self.eos_token_id = eos_token_id
        self.sessions: list[MockSession] = []

    def logits(self, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        raise NotImplementedError

    def open(self) -> MockSession:
        self.sessions.append(MockSession(self))
        return self.sessions[-1]

    def score_many(self, sessions: Sequence[CanvasSession], fed: Sequence[Fed]) -> list[CanvasScores]:
        return [session.score(one) for session, one in zip(sessions, fed, strict=True)]


class Exact(MockModel):
    """Exact marginals given what is committed, without a prompt; ties are broken by noise far below any gap."""

    def __init__(self, vocab_size: int, marginals: Marginals, seed: int = 0) -> None:
        super().__init__(vocab_size)
        self._marginals = marginals
        self._rng = np.random.default_rng(seed)

    def logits(self, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        p = self._marginals(tokens)
        with np.errstate(divide="ignore"):
            logits = np.log(np.hstack([p, np.zeros((len(p), 1))]))
        return np.asarray(logits + 1e-7 * self._rng.gumbel(size=logits.shape))


class Whatever(MockModel):
    """Any logits, fixed by the canvas as it is stored. ``sharpness`` scales them."""

    def __init__(self, vocab_size: int = 7, eos_token_id: int | None = None, sharpness: float = 3.0) -> None:
        super().__init__(vocab_size, eos_token_id)
        self._sharpness = sharpness

    def logits(self, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        rng = np.random.default_rng(zlib.crc32(tokens.tobytes()))
        # Half of what a row holds stays the same from step to step, as in a model that is sure of some slots.
        steady = np.random.default_rng(len(tokens)).normal(size=(len(tokens), self.vocab_size))
        return np.asarray(self._sharpness * (steady + rng.normal(size=steady.shape)))


def shuffle(n: int) -> Exact:
    """Any order of ``n`` different items: each masked slot is uniform over the items that are not used."""

    def marginals(tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        p = np.zeros((n, n))
        free = [item for item in range(n) if item not in tokens]
        for slot, token in enumerate(tokens):
            if token == n:
                p[slot, free] = 1 / len(free)
            else:
                p[slot, token] = 1
        return p

    return Exact(n + 1, marginals)


def replace_random(n: int) -> Exact:
    """The list 0, 1, ..., n - 1 with one slot, unknown which, replaced by ``n``."""

    def marginals(tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        p = np.zeros((n, n + 1))
        masked = tokens == n + 1
        chance = 0.0 if (tokens == n).any() else 1 / max(1, masked.sum())
        for slot, token in enumerate(tokens):
            if masked[slot]:
                p[slot, n] = chance
                p[slot, slot] = 1 - chance
            else:
                p[slot, token] = 1
        return p

    return Exact(n + 2, marginals)


def copy(n: int) -> Exact:
    """The list 0, 1, ..., n - 1: nothing depends on anything."""
    return Exact(n + 1, lambda tokens: np.eye(n))
