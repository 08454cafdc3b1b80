"""Warpers against transformers' classes: values, kept sets, ties at the cut, rows that were truncated before."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers.generation import logits_process as hf

from unspool.methods.shaping._built_in.truncation import MinP, Temperature, TopK, TopP, TypicalP

PAIRS = {
    "temperature": [(Temperature(t), hf.TemperatureLogitsWarper(t)) for t in (0.3, 0.8, 1.7)],
    "top_k": [(TopK(k), hf.TopKLogitsWarper(k)) for k in (1, 3, 7, 8, 50, 1500, 10000)],
    "top_p": [(TopP(p), hf.TopPLogitsWarper(p)) for p in (0.01, 0.3, 0.5, 0.9, 0.95, 0.9999)],
    "min_p": [(MinP(p), hf.MinPLogitsWarper(p)) for p in (0.001, 0.05, 0.5, 1.0)],
    "typical_p": [(TypicalP(p), hf.TypicalLogitsWarper(p)) for p in (0.05, 0.2, 0.9, 0.999)],
}
CASES = [(name, shaper, processor) for name, pairs in PAIRS.items() for shaper, processor in pairs]
NONE = np.array([0])


def expected(processor, logits):
    return processor(torch.tensor(NONE)[None], torch.tensor(logits)[None])[0].numpy()


def rows(vocab):
    for seed in range(12):
        rng = np.random.default_rng(seed)
        logits = rng.normal(0, (0.3, 1, 4)[seed % 3], vocab).astype(np.float32)
        if seed % 4 == 3:
            logits[rng.permutation(vocab)[: vocab * 3 // 4]] = -np.inf
        yield logits


@pytest.mark.parametrize("vocab", [8, 5000])
@pytest.mark.parametrize(("name", "shaper", "processor"), CASES, ids=[f"{c[1]}" for c in CASES])
def test_equals_transformers(name, shaper, processor, vocab):
    for logits in rows(vocab):
        original = logits.copy()
        shaped = shaper(NONE, logits)
        reference = expected(processor, logits)
        assert np.array_equal(np.isneginf(shaped), np.isneginf(reference))
        np.testing.assert_allclose(shaped, reference, rtol=1e-6, atol=1e-6)
        assert shaped.dtype == np.float32
        assert np.array_equal(logits, original)


@pytest.mark.parametrize(("name", "shaper", "processor"), CASES, ids=[f"{c[1]}" for c in CASES])
def test_ties_at_the_cut_small(name, shaper, processor):
    for seed in range(60):
        logits = np.random.default_rng(seed).integers(0, 3, 8).astype(np.float32)
        np.testing.assert_allclose(shaper(NONE, logits), expected(processor, logits), rtol=1e-6)


@pytest.mark.parametrize(("name", "shaper", "processor"), CASES, ids=[f"{c[1]}" for c in CASES])
def test_ties_at_the_cut_large(name, shaper, processor):
    # transformers' top_p sorts large rows unstably, so which of the equal tokens stays is compared by value.
    for seed in range(6):
        logits = np.random.default_rng(seed).integers(0, 12, 5000).astype(np.float32)
        shaped, reference = shaper(NONE, logits), expected(processor, logits)
        np.testing.assert_allclose(np.sort(shaped), np.sort(reference), rtol=1e-6)
        if name != "top_p":
            assert np.array_equal(np.isneginf(shaped), np.isneginf(reference))


def test_top_p_keeps_the_higher_ids_of_equal_logits():
    logits = np.zeros(64, dtype=np.float32)
    assert np.flatnonzero(TopP(0.25)(NONE, logits) > -np.inf).tolist() == list(range(48, 64))


@pytest.mark.parametrize(("name", "shaper", "processor"), CASES, ids=[f"{c[1]}" for c in CASES])
def test_double_precision_stays(name, shaper, processor):
    logits = np.random.default_rng(1).normal(0, 2, 8)
    shaped = shaper(NONE, logits)
    assert shaped.dtype == np.float64
    np.testing.assert_allclose(shaped, expected(processor, logits), rtol=1e-15)


def test_one_survivor_stays():
    logits = np.full(5000, -np.inf, dtype=np.float32)
    logits[77] = -3
    for name, shaper, _ in CASES:
        if name != "temperature":
            assert np.array_equal(shaper(NONE, logits), logits)
