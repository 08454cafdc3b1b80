"""Repetition penalty and forbidden n-grams against transformers' classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers.generation.logits_process import NoRepeatNGramLogitsProcessor, RepetitionPenaltyLogitsProcessor

from unspool.methods.shaping._built_in.repetition import NoRepeatNGram, RepetitionPenalty


def check(shaper, processor, tokens, logits):
    original = logits.copy()
    shaped = shaper(tokens, logits)
    expected = processor(torch.tensor(tokens)[None], torch.tensor(logits)[None])[0].numpy()
    assert np.array_equal(np.isneginf(shaped), np.isneginf(expected))
    np.testing.assert_allclose(shaped, expected, rtol=1e-6, atol=1e-6)
    assert shaped.dtype == logits.dtype
    assert np.array_equal(logits, original)


@pytest.mark.parametrize("penalty", [0.7, 1.3])
@pytest.mark.parametrize("vocab", [8, 5000])
def test_repetition_penalty_equals_transformers(vocab, penalty):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        logits = rng.normal(0, 3, vocab).astype(np.float32)
        logits[rng.integers(vocab, size=2)] = -np.inf
        tokens = rng.integers(0, vocab + 2, rng.integers(1, 40))  # ids that have no logit are ignored
        check(RepetitionPenalty(penalty), RepetitionPenaltyLogitsProcessor(penalty), tokens, logits)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("vocab", [8, 5000])
def test_no_repeat_ngram_equals_transformers(vocab, size):
    banned = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        logits = rng.normal(0, 3, vocab).astype(np.float32)
        tokens = rng.integers(0, 4, rng.integers(1, 60)) + (vocab - 3)  # few symbols, one of them without a logit
        check(NoRepeatNGram(size), NoRepeatNGramLogitsProcessor(size), tokens, logits)
        banned += int(np.isneginf(NoRepeatNGram(size)(tokens, logits)).sum())
    assert banned > 5


def test_no_repeat_ngram_forbids_the_completion_only():
    shaped = NoRepeatNGram(3)(np.array([1, 2, 3, 5, 1, 2]), np.zeros(8, dtype=np.float32))
    assert np.flatnonzero(np.isneginf(shaped)).tolist() == [3]
