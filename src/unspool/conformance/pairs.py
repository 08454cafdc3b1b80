"""Pairs of a target and a draft model over few tokens: near, far and degenerate. A good draft hides a wrong rule."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unspool.backends.toy import ToyModel

KINDS = ("close", "far", "equal", "disjoint", "zeros", "one_hot", "one_hot_draft", "uniform", "narrow_draft")


def normalised(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows that sum to 1."""
    rows: NDArray[np.float64] = weights / weights.sum(axis=-1, keepdims=True)
    return rows


def pair(kind: str, vocab_size: int, seed: int = 0) -> tuple[ToyModel, ToyModel]:
    """Target and draft bigram models, with other rows for every context."""
    rng = np.random.default_rng([seed, vocab_size, KINDS.index(kind)])
    shape = (vocab_size + 1, vocab_size)
    p = normalised(np.exp(rng.standard_normal(shape)))
    q = normalised(np.exp(2.5 * rng.standard_normal(shape)))
    half = (vocab_size + 1) // 2
    rows = np.arange(vocab_size + 1)
    if kind == "close":
        q = normalised(p * np.exp(0.15 * rng.standard_normal(shape)))
    elif kind == "equal":
        q = p.copy()
    elif kind == "disjoint":
        p[:, half:] = 0
        q[:, :half] = 0
    elif kind == "zeros":
        p[rows, rows % vocab_size] = 0
        q[rows, (rows + 1) % vocab_size] = 0
    elif kind == "one_hot":
        p = np.eye(vocab_size)[rng.integers(vocab_size, size=vocab_size + 1)]
    elif kind == "one_hot_draft":
        q = np.eye(vocab_size)[rng.integers(vocab_size, size=vocab_size + 1)]
    elif kind == "uniform":
        q = np.ones(shape)
    elif kind == "narrow_draft":
        q[:, 2:] = 0  # more siblings are asked for than the draft has tokens
    return ToyModel(normalised(p)), ToyModel(normalised(q))
