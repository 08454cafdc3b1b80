"""The whole pipeline against the list that transformers' ``generate`` builds from the same options."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import GenerationConfig, GenerationMixin, LogitsProcessorList
from transformers.generation import logits_process as hf

from unspool.engine.options import GenerationOptions
from unspool.methods.shaping._built_in import build
from unspool.methods.shaping._built_in.repetition import RepetitionPenalty
from unspool.methods.shaping._built_in.truncation import Temperature

EOS = 5
PENALTIES = {
    "sequence_bias": {(1,): 2.0, (2, 3): -4.0, (0,): 1.0},
    "repetition_penalty": 1.4,
    "no_repeat_ngram_size": 3,
    "bad_words_ids": [[4], [EOS], [1, 2]],
}
WARPERS = {"top_k": 60, "top_p": 0.9, "min_p": 0.02, "typical_p": 0.8}


def theirs(options, temperature, custom=()):
    """The processors of ``generate`` for the same options."""
    sampling = {"temperature": temperature, **{"top_k": 0, **options}} if temperature else dict(options)
    if not temperature:
        sampling = {k: v for k, v in options.items() if k not in WARPERS}
    config = GenerationConfig(do_sample=bool(temperature), eos_token_id=EOS, **sampling)
    config._eos_token_tensor = torch.tensor([EOS])
    model = SimpleNamespace(
        config=SimpleNamespace(is_encoder_decoder=False),
        _merge_criteria_processor_list=lambda *lists: GenerationMixin._merge_criteria_processor_list(None, *lists),
    )
    return GenerationMixin._get_logits_processor(
        model, config, input_ids_seq_length=1, logits_processor=LogitsProcessorList(custom)
    )


def ours(options, temperature, custom=()):
    return build(GenerationOptions(temperature=temperature, eos_token_id=[EOS], shapers=custom, **options))


@pytest.mark.parametrize("custom", [False, True])
@pytest.mark.parametrize("temperature", [0.0, 0.6, 1.0, 1.5])
@pytest.mark.parametrize("options", [{}, PENALTIES, WARPERS, PENALTIES | WARPERS], ids=["", "p", "w", "pw"])
@pytest.mark.parametrize("vocab", [8, 5000])
def test_equals_transformers(vocab, options, temperature, custom):
    # The second of these takes the place of the built-in penalty, the first comes after all penalties.
    extra = [hf.SuppressTokensLogitsProcessor([6]), hf.RepetitionPenaltyLogitsProcessor(3.0)] if custom else []
    shapers = ours(options, temperature, extra)
    processors = theirs(options, temperature, extra)
    assert len(shapers) == len(processors)
    for seed in range(6):
        rng = np.random.default_rng(seed)
        tokens = rng.integers(0, 8, 15)
        logits = rng.normal(0, 2, vocab).astype(np.float32)
        original, shaped = logits.copy(), logits
        for shaper in shapers:
            shaped = shaper(tokens, shaped)
        expected = processors(torch.tensor(tokens)[None], torch.tensor(logits)[None])[0].numpy()
        assert np.array_equal(np.isneginf(shaped), np.isneginf(expected))
        np.testing.assert_allclose(shaped, expected, rtol=2e-6, atol=1e-6)
        assert np.array_equal(logits, original)


def test_nothing_switched_on():
    assert build(GenerationOptions()) == []
    assert build(GenerationOptions(temperature=1.0)) == []
    assert build(GenerationOptions(bad_words_ids=[[EOS]], eos_token_id=[EOS])) == []


def test_greedy_has_penalties_but_no_warpers():
    options = {"repetition_penalty": 1.2, "top_k": 5, "top_p": 0.5}
    assert ours(options, 0.0) == [RepetitionPenalty(1.2)]


def test_own_shapers_come_before_the_warpers():
    def shaper(tokens, logits):
        return logits

    assert ours({"repetition_penalty": 1.2}, 0.5, [shaper]) == [RepetitionPenalty(1.2), shaper, Temperature(0.5)]
