"""Denoisers without weights: exact conditional marginals of list tasks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from unspool.conformance.canvas_model import MockModel

Marginals = Callable[[NDArray[np.int64]], NDArray[np.float64]]
"""From the slots to probabilities [slots, vocabulary without the mask]."""


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
