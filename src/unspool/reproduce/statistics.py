"""Figures with their 95 % intervals: shares, means, differences and ratios of paired cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import stats

from unspool.reproduce.experiment import Figure

SAMPLES = 10_000
"""Bootstrap samples of an interval; their generator has seed 0."""


def share(hits: Sequence[bool]) -> Figure:
    """Share of true cases, with Wilson's interval."""
    if not hits:
        return Figure(float("nan"), count=0)
    interval = stats.binomtest(sum(hits), len(hits)).proportion_ci(method="wilson")
    return Figure(sum(hits) / len(hits), float(interval.low), float(interval.high), len(hits))


def mean(values: Sequence[float]) -> Figure:
    """Mean over cases, with a percentile bootstrap over cases."""
    return difference(values, [0.0] * len(values))


def difference(ours: Sequence[float], theirs: Sequence[float]) -> Figure:
    """Mean of ``ours`` minus ``theirs``, paired by case, with a percentile bootstrap over cases."""
    each = np.subtract(np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64))
    if not len(each):
        return Figure(float("nan"), count=0)
    low, high = np.quantile(each[_drawn(len(each))].mean(axis=1), (0.025, 0.975))
    return Figure(float(each.mean()), float(low), float(high), len(each))


def ratio(above: Sequence[float], below: Sequence[float]) -> Figure:
    """Sum of ``above`` divided by the sum of ``below``, paired by case, with a percentile bootstrap over cases.

    Tokens per pass are such a ratio: all tokens divided by all passes.
    """
    return ratio_of_ratios(above, below, [1.0] * len(above), [1.0] * len(below))


def ratio_of_ratios(
    above: Sequence[float], below: Sequence[float], other_above: Sequence[float], other_below: Sequence[float]
) -> Figure:
    """Ratio of ``above`` to ``below`` divided by that of the others, all paired by case; a bootstrap over cases."""
    a, b, c, d = (np.asarray(values, dtype=np.float64) for values in (above, below, other_above, other_below))
    if not len(a) or not (b.sum() and c.sum()):
        return Figure(float("nan"), count=0)
    drawn = _drawn(len(a))
    sums = [values[drawn].sum(axis=1) for values in (a, b, c, d)]
    with np.errstate(divide="ignore", invalid="ignore"):
        samples = sums[0] / sums[1] / (sums[2] / sums[3])
    low, high = np.nanquantile(samples, (0.025, 0.975))
    return Figure(float(a.sum() / b.sum() / (c.sum() / d.sum())), float(low), float(high), len(a))


def of_sums(columns: Sequence[Sequence[float]], function: Callable[..., Any]) -> Figure:
    """``function`` of the sums over cases, with a percentile bootstrap over cases.

    Args:
        columns: values to sum, paired by case.
        function: receives one number, or an array of numbers, per column.
    """
    data = np.asarray(columns, dtype=np.float64)
    if not data.shape[1]:
        return Figure(float("nan"), count=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        samples = function(*data[:, _drawn(data.shape[1])].sum(axis=2))
        low, high = np.nanquantile(samples, (0.025, 0.975))
        return Figure(float(function(*data.sum(axis=1))), float(low), float(high), data.shape[1])


def mcnemar(ours: Sequence[bool], theirs: Sequence[bool]) -> float:
    """Two-sided p of McNemar's exact test, on the cases that only one side gets right."""
    pairs = list(zip(ours, theirs, strict=True))
    gained, lost = pairs.count((True, False)), pairs.count((False, True))
    return float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def _drawn(count: int) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    return np.random.default_rng(0).integers(0, count, (SAMPLES, count))
