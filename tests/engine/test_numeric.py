"""Top-k and softmax against plain numpy."""

from __future__ import annotations

import numpy as np
import pytest

from tests.pairwise import pairwise
from unspool.engine.numeric import argmax, log_softmax, log_sum_exp, runner_up, softmax, top_k


def reference(rows, k):
    order = np.argsort(-rows, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(rows, order, 1)


def check(rows, k):
    expected_ids, expected_values = reference(rows, k)
    for block_max in (
        None,
        *(rows.reshape(len(rows), -1, run).max(axis=2) for run in (4, 100) if not rows.shape[1] % run),
    ):
        ids, values = top_k(rows, k, block_max)
        assert np.array_equal(ids, expected_ids)
        assert np.array_equal(values, expected_values)
        assert values.dtype == rows.dtype
        if block_max is not None:
            for row, of_row, best in zip(rows, block_max, expected_ids, strict=True):
                assert argmax(row, of_row) == best[0]
                assert runner_up(row, int(best[0]), of_row) == np.delete(row, best[0]).max(initial=-np.inf)


KINDS = ["normal", "double", "ties", "equal", "truncated", "ascending", "descending"]


@pytest.mark.parametrize(
    ("kind", "k", "vocab"), pairwise(KINDS, [1, 2, 8, 39, 156, 2501], [1, 8, 128, 129, 5003, 20000])
)
def test_top_k(kind, k, vocab):
    rng = np.random.default_rng(vocab * k)
    rows = rng.normal(size=(2, vocab)).astype(np.float32)
    if kind == "double":
        rows = rng.normal(size=(2, vocab))
    elif kind == "ties":
        rows = rng.integers(0, 6, (2, vocab)).astype(np.float32)
    elif kind == "equal":
        rows[:] = 1.5
    elif kind == "truncated":
        rows[rng.random(rows.shape) < 0.99] = -np.inf
    elif kind == "ascending":
        rows.sort(axis=1)
    elif kind == "descending":
        rows = -np.sort(rows, axis=1)
    check(rows, k)


@pytest.mark.parametrize("k", [1, 3, 8])
def test_top_k_that_lies_in_the_last_entries(k):
    rows = np.zeros((1, 128 * 40 + 3), dtype=np.float32)
    rows[0, -3:] = [2, 1, 2]
    check(rows, k)


def test_top_k_of_a_row_that_holds_all_of_them_side_by_side():
    rows = np.random.default_rng(0).normal(size=(1, 5000)).astype(np.float32)
    rows[0, 128:148] += 100
    check(rows, 20)


def test_softmax():
    logits = np.array([1.0, 3.0, -np.inf, 1000.0 - 998.0], dtype=np.float32)
    expected = np.exp([1.0, 3.0, -np.inf, 2.0]) / np.exp([1.0, 3.0, 2.0]).sum()
    assert softmax(logits).dtype == np.float64
    np.testing.assert_allclose(softmax(logits), expected, rtol=1e-14)
    np.testing.assert_allclose(softmax(logits + 5000), expected, rtol=1e-3)
    assert log_softmax(logits)[2] == -np.inf
    np.testing.assert_allclose(np.exp(log_softmax(logits)), expected, rtol=1e-14)
    assert logits[1] == 3


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_sum_exp_gives_log_softmax(dtype: type) -> None:
    row = (np.random.default_rng(1).normal(size=5000) * 4 + 300).astype(dtype)
    row[[3, 7]] = -np.inf
    with np.errstate(all="ignore"):
        found = row.astype(np.float64) - log_sum_exp(row)
    expected = log_softmax(row)
    assert found[3] == -np.inf
    finite = row > -np.inf
    assert np.abs(found[finite] - expected[finite]).max() < (1e-6 if dtype == np.float32 else 1e-12)
