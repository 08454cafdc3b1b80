"""Top-k, argmax and log-probabilities over rows of logits, fast for vocabularies of 10^5 and more."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_BLOCK = 128


def top_k(rows: NDArray[Any], k: int) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Ids and values [n, k] of the ``k`` largest entries of each row [n, vocabulary]; best first, lowest id first.

    The maxima of blocks of 128 are found first: the ``k`` largest entries lie in the ``k`` blocks with the largest
    maxima, so a full partition of the vocabulary is never needed.
    """
    n, vocab = rows.shape
    k = min(k, vocab)
    blocks = vocab // _BLOCK
    if blocks <= 2 * k:
        return _sorted_top(rows, np.broadcast_to(np.arange(vocab), rows.shape), k)
    ids = np.empty((n, k), dtype=np.int64)
    values = np.empty((n, k), dtype=rows.dtype)
    tail = np.arange(blocks * _BLOCK, vocab)
    offsets = np.arange(_BLOCK)
    for i, row in enumerate(rows):
        body = row[: blocks * _BLOCK].reshape(blocks, _BLOCK)
        maxima = body.max(axis=1)
        # Every block that ties with the k-th maximum stays, so that equal logits go to the lowest id.
        floor = np.partition(maxima, blocks - k)[blocks - k]
        picked = np.flatnonzero(maxima >= floor)
        candidates = np.concatenate([(picked[:, None] * _BLOCK + offsets).ravel(), tail])
        ids[i], values[i] = (a[0] for a in _sorted_top(row[candidates][None], candidates[None], k))
    return ids, values


def _sorted_top(values: NDArray[Any], ids: NDArray[np.int64], k: int) -> tuple[NDArray[np.int64], NDArray[Any]]:
    # Stable sort of the negated values: among equals the lowest id (ids ascend) comes first.
    order = np.argsort(-values, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(ids, order, 1), np.take_along_axis(values, order, 1)


def log_softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Log-probabilities of one row in float64; entries of -inf stay -inf."""
    x = logits.astype(np.float64)
    x -= x.max()
    x -= np.log(np.exp(x).sum())
    return x


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Probabilities of one row in float64; they sum to 1."""
    x = np.exp(logits.astype(np.float64) - float(logits.max()))
    x /= x.sum()
    return x
