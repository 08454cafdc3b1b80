"""Warpers, used when tokens are sampled: temperature, ``top_k``, ``top_p``, ``min_p`` and ``typical_p``.

The kept sets are those of transformers, found without sorting the vocabulary. Where transformers leaves the order of
equal logits to an unstable sort, ``top_p`` keeps the higher ids, which is what a stable sort gives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from unspool.engine.contracts import Logits
from unspool.engine.numeric import cooled
from unspool.engine.numeric import top_k as largest


@dataclass(frozen=True)
class Temperature:
    """Divides the logits by ``temperature``, above 0. The largest logit stays finite, however small it is."""

    is_warper: ClassVar[bool] = True
    is_elementwise: ClassVar[bool] = True
    temperature: float

    def __call__(self, tokens: NDArray[np.int64], logits: Logits) -> Logits:
        return cooled(logits, self.temperature)


@dataclass(frozen=True)
class TopK:
    """Keeps the ``top_k`` largest logits, at least 1, and all ties with the smallest of them."""

    is_warper: ClassVar[bool] = True
    top_k: int

    def __call__(self, tokens: NDArray[np.int64], logits: Logits) -> Logits:
        if self.top_k >= len(logits):
            return logits
        floor = largest(logits[None], self.top_k)[1][0, -1]
        return logits if floor == -np.inf else _keep(logits, np.flatnonzero(logits >= floor))


@dataclass(frozen=True)
class TopP:
    """Keeps the smallest set of most likely tokens whose total probability is at least ``top_p``, in (0, 1).

    Source: The Curious Case of Neural Text Degeneration (2019).
    """

    is_warper: ClassVar[bool] = True
    top_p: float

    def __call__(self, tokens: NDArray[np.int64], logits: Logits) -> Logits:
        ids, values = _survivors(logits)
        peak = values.max()
        weights = np.exp(values - peak)
        total = float(weights.sum(dtype=np.float64))
        removed = 1 - self.top_p
        # Few tokens need sorting: the likely ones, or more until their sum suffices. All tokens below half an even
        # share of the removed mass are removed, whatever their order, so the search ends there.
        share, least = removed / 512, removed / (2 * len(values))
        near = np.flatnonzero(weights > share * total)
        while share > least and float(weights[near].sum(dtype=np.float64)) < (self.top_p + 1e-6) * total:
            share = max(share / 16, least)
            near = np.flatnonzero(weights > share * total)
        ids, values = ids[near], values[near]
        ranked = np.sort(values)[::-1]
        mass = np.exp(ranked - peak).astype(np.float64) / total
        # Mass of a token and all below it, compared in the precision of the logits as in transformers.
        below = (1 - (np.cumsum(mass) - mass)).astype(logits.dtype)
        kept = max(1, int(np.count_nonzero(below > logits.dtype.type(removed))))
        cut = ranked[kept - 1]
        above = ids[values > cut]
        return _keep(logits, np.concatenate([above, ids[values == cut][len(above) - kept :]]))


@dataclass(frozen=True)
class MinP:
    """Keeps tokens at least ``min_p`` times as likely as the most likely one; in (0, 1].

    Source: Turning Up the Heat: Min-p Sampling for Creative and Coherent LLM Outputs (2024).
    """

    is_warper: ClassVar[bool] = True
    min_p: float

    def __call__(self, tokens: NDArray[np.int64], logits: Logits) -> Logits:
        peak = logits.max()
        # The logarithm finds the candidates, the ratio of rounded probabilities decides as in transformers.
        near = np.flatnonzero(logits - peak > np.log(self.min_p) - 0.01)
        ratio = np.exp(logits[near] - peak)
        return _keep(logits, near[ratio >= logits.dtype.type(self.min_p)])


@dataclass(frozen=True)
class TypicalP:
    """Keeps the tokens whose surprise is nearest to the entropy until they sum to ``typical_p``, in (0, 1).

    On rows of thousands of almost equal logits, distances agree to the last bit and the edge of the set may differ
    from transformers' by a few tokens. Source: Locally Typical Sampling (2022).
    """

    is_warper: ClassVar[bool] = True
    typical_p: float

    def __call__(self, tokens: NDArray[np.int64], logits: Logits) -> Logits:
        ids, values = _survivors(logits)
        shifted = values - values.max()
        weights = np.exp(shifted)
        total = float(weights.sum(dtype=np.float64))
        # In the precision of the logits, as in transformers: what rounds to the same distance is kept together.
        logprobs = shifted - logits.dtype.type(np.log(total))
        entropy = -(np.exp(logprobs) * logprobs).sum()
        distance = np.abs(-logprobs - entropy)
        target = logits.dtype.type(self.typical_p)
        radius = 1.0
        near = np.flatnonzero(distance <= radius)
        # Widen until the mass is safely reached, so that few tokens need sorting.
        while len(near) < len(ids) and float(weights[near].sum(dtype=np.float64)) / total < self.typical_p + 1e-6:
            radius *= 2
            near = np.flatnonzero(distance <= radius)
        order = near[np.argsort(distance[near])]
        mass = (np.cumsum(weights[order], dtype=np.float64) / total).astype(logits.dtype)
        last = min(int(np.count_nonzero(mass < target)), len(order) - 1)
        return _keep(logits, ids[near[distance[near] <= distance[order[last]]]])


def _survivors(logits: Logits) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Ids and logits of the tokens that are not forbidden yet."""
    if logits.min() > -np.inf:
        return np.arange(len(logits)), logits
    ids = np.flatnonzero(logits > -np.inf)
    return ids, logits[ids]


def _keep(logits: Logits, ids: NDArray[np.int64]) -> Logits:
    shaped = np.full_like(logits, -np.inf)
    shaped[ids] = logits[ids]
    return shaped
