"""transformers' processors as shapers, and what cannot be one."""

from __future__ import annotations

import functools
import subprocess
import sys

import numpy as np
import pytest
import torch
from transformers import LogitsProcessor, LogitsProcessorList
from transformers.generation import logits_process as hf

from unspool.errors import UnspoolError, UnsupportedError
from unspool.methods.shaping._built_in import adapt
from unspool.methods.shaping._built_in.processors import TorchProcessor

TOKENS = np.array([1, 2, 3, 1, 2])
LOGITS = np.linspace(-2, 2, 8, dtype=np.float32)


class Doubling(LogitsProcessor):
    """A user's own processor, which writes into both of its arguments."""

    def __call__(self, input_ids, scores):
        assert input_ids.dtype == torch.long
        assert input_ids.shape == (1, 5)
        assert scores.dtype == torch.float32
        scores[:, input_ids[0, -1]] *= 2
        input_ids[:] = 0
        return scores


class PlainShaper:
    def __call__(self, tokens, logits):
        return logits + 1


def test_processor_is_called_with_copies():
    (shaper,) = adapt([Doubling()])
    shaped = shaper(TOKENS, LOGITS)
    assert isinstance(shaped, np.ndarray)
    assert shaped.shape == (8,)
    assert shaped[2] == 2 * LOGITS[2]
    assert np.array_equal(np.delete(shaped, 2), np.delete(LOGITS, 2))
    assert TOKENS.tolist() == [1, 2, 3, 1, 2]
    assert LOGITS[2] == np.linspace(-2, 2, 8, dtype=np.float32)[2]


def test_double_precision_rows_are_accepted():
    (shaper,) = adapt([Doubling()])
    assert shaper(TOKENS, LOGITS.astype(np.float64))[2] == 2 * LOGITS[2]


def test_lists_are_flattened_in_order_and_shapers_pass_through():
    plain = PlainShaper()
    suppress, ngram = hf.SuppressTokensLogitsProcessor([4]), hf.NoRepeatNGramLogitsProcessor(2)
    shapers = adapt([plain, LogitsProcessorList([suppress, ngram])])
    assert shapers[0] is plain
    assert [s.processor for s in shapers[1:]] == [suppress, ngram]


def test_duck_typed_processors_are_known_by_their_arguments():
    def double(input_ids, scores):
        return scores * 2

    (shaper,) = adapt([double])
    assert isinstance(shaper, TorchProcessor)
    assert np.array_equal(shaper(TOKENS, LOGITS), LOGITS * 2)


def test_processor_that_needs_more_arguments():
    def scale(input_ids, scores, factor):
        return scores * factor

    with pytest.raises(UnsupportedError, match="needs factor"):
        adapt([scale])
    (shaper,) = adapt([functools.partial(scale, factor=3)])
    assert np.array_equal(shaper(TOKENS, LOGITS), LOGITS * 3)


def test_processor_with_state_is_refused():
    with pytest.raises(UnsupportedError, match=r"UnbatchedClassifierFreeGuidance.*state"):
        adapt([hf.UnbatchedClassifierFreeGuidanceLogitsProcessor(1.5, model=None)])


def test_object_that_cannot_be_called():
    with pytest.raises(UnspoolError, match="must be callable, but 3"):
        adapt([3])


def test_shaping_loads_neither_torch_nor_transformers():
    code = (
        "import sys; from unspool.methods.shaping._built_in import build;"
        "from unspool.engine.options import GenerationOptions as O;"
        "build(O(temperature=0.5, top_k=3, shapers=[lambda tokens, logits: logits]));"
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
