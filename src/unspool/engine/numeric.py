"""Top-k, argmax and log-probabilities over rows of logits, fast for vocabularies of 10^5 and more."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_GROUP = 128

RANGE = 1e30
"""For best logits up to here, all differences and sums taken of a row stay within float32."""

_COLDEST, _HOTTEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
"""Temperatures that float32 represents in full precision."""


def top_k(rows: NDArray[Any], k: int, block_max: NDArray[Any] | None = None) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Ids and values [n, k] of the ``k`` largest entries of each row [n, vocabulary]; best first, lowest id first.

    The maxima of groups of up to 128 entries are computed first. ``k`` groups contain an entry at least as large as the
    ``k``-th largest maximum, so smaller entries cannot be in the result, and no full sort is needed.
    """
    n, vocab = rows.shape
    k = min(k, vocab)
    if block_max is not None and k <= block_max.shape[1] and (found := _top_of_peaks(rows, k, block_max)):
        return found
    size = min(_GROUP, vocab // (2 * k)) if k else 0
    if size < 2:
        return _sorted_top(rows, np.broadcast_to(np.arange(vocab), rows.shape), k)
    groups = vocab // size
    ids = np.empty((n, k), dtype=np.int64)
    values = np.empty((n, k), dtype=rows.dtype)
    for i, row in enumerate(rows):
        # Strided groups: the maximum then runs over long rows, which is several times faster than over short ones.
        grouped = row[: size * groups].reshape(size, groups)
        maxima = grouped.max(axis=0)
        floor = np.partition(maxima, groups - k)[groups - k]
        if floor > -np.inf:
            # A large enough entry is in a group with such a maximum, or after the last group.
            chosen = np.flatnonzero(maxima >= floor)
            at, group = np.nonzero(grouped[:, chosen] >= floor)
            behind = size * groups + np.flatnonzero(row[size * groups :] >= floor)
            candidates = np.sort(np.concatenate([at * groups + chosen[group], behind]))
        else:  # a row that was truncated to few entries
            candidates = np.arange(vocab)
        ids[i], values[i] = (a[0] for a in _sorted_top(row[candidates][None], candidates[None], k))
    return ids, values


def _top_of_peaks(rows: NDArray[Any], k: int, block_max: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[Any]] | None:
    """``top_k`` of all rows at once, reading only groups with a large maximum; None if NaN leaves too few entries."""
    n, groups = block_max.shape
    floor = np.partition(block_max, groups - k, axis=1)[:, groups - k, None]
    owner, group = np.nonzero(block_max >= floor)
    runs = rows.reshape(n, groups, -1)[owner, group]
    run, at = np.nonzero(runs >= floor[owner, 0, None])
    values, ids, owner = runs[run, at], group[run] * runs.shape[1] + at, owner[run]
    counts = np.bincount(owner, minlength=n)
    if counts.min() < k:
        return None
    # Stable, and ids ascend: the lowest comes first among equals.
    order = np.lexsort((-values, owner))
    first = order[(np.cumsum(counts) - counts)[:, None] + np.arange(k)]
    return ids[first], values[first]


def argmax(row: NDArray[Any], block_max: NDArray[Any]) -> int:
    """Index of the largest entry, the first among equals, using the block maxima of the row."""
    size = len(row) // len(block_max)
    start = int(block_max.argmax()) * size
    return start + int(row[start : start + size].argmax())


def runner_up(row: NDArray[Any], best: int, block_max: NDArray[Any] | None = None) -> float:
    """The largest entry besides the one at ``best``, using the block maxima if given; -inf if there is no other."""
    if block_max is None:
        return float(max(row[:best].max(initial=-np.inf), row[best + 1 :].max(initial=-np.inf)))
    size = len(row) // len(block_max)
    group = best // size
    start = group * size
    others = max(block_max[:group].max(initial=-np.inf), block_max[group + 1 :].max(initial=-np.inf))
    return max(float(others), runner_up(row[start : start + size], best - start))


def fitted(exact: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[Any]:
    """A row of logits in another type; its best entry is finite and within ``RANGE``.

    If the best entry is beyond it, all entries are shifted so that the best is 0, which changes no probability; entries
    beyond the type's range become -inf. If any entry is +inf, those become 0 and all others -inf. Rows that contain
    NaN, or only -inf, are unchanged.
    """
    peak = exact.max()
    if peak == np.inf:
        exact = np.where(exact == np.inf, 0.0, -np.inf)
    elif RANGE < abs(peak) < np.inf:
        exact = exact - peak
    with np.errstate(over="ignore"):
        return exact.astype(dtype)


def cooled(row: NDArray[Any], temperature: float) -> NDArray[Any]:
    """Logits divided by a temperature above 0. The best entry stays finite for any temperature.

    If the quotients leave the range of the row's type, the differences to the best entry are divided instead. Their
    limits are right: as the temperature goes to 0, 0 for the best entries and -inf for all others.
    """
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        divided: NDArray[Any] = row / temperature
        if not (_COLDEST <= temperature <= _HOTTEST and abs(divided.max()) <= RANGE):
            exact = row.astype(np.float64)
            divided = ((exact - exact.max()) / temperature).astype(row.dtype)
        return divided


def _sorted_top(values: NDArray[Any], ids: NDArray[np.int64], k: int) -> tuple[NDArray[np.int64], NDArray[Any]]:
    # Stable sort of the negated values: the lowest id (ids ascend) comes first among equals.
    order = np.argsort(-values, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(ids, order, 1), np.take_along_axis(values, order, 1)


def log_softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Log-probabilities of one row in float64; entries of -inf stay -inf."""
    x = logits.astype(np.float64)
    x -= x.max()
    x -= np.log(np.exp(x).sum())
    return x


def log_sum_exp(logits: NDArray[Any]) -> float:
    """Log of the sum of exponentials: log-probabilities are logits minus this. Exponentials in the row's own precision,
    summed in float64: several times faster than ``log_softmax`` on a large float32 vocabulary, correct to 1e-7."""
    best = logits.max()
    return float(best) + float(np.log(np.exp(logits - best).sum(dtype=np.float64)))


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Probabilities of one row in float64; they sum to 1."""
    x = np.exp(logits.astype(np.float64) - float(logits.max()))
    x /= x.sum()
    return x
