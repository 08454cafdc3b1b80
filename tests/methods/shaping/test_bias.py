"""``sequence_bias`` and ``bad_words_ids`` against transformers' classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers.generation.logits_process import NoBadWordsLogitsProcessor, SequenceBiasLogitsProcessor

from unspool.errors import UnspoolError
from unspool.methods.shaping._built_in.bias import SequenceBias, bad_words


def reference(processor, tokens, logits):
    return processor(torch.tensor(tokens)[None], torch.tensor(logits)[None])[0].numpy()


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("vocab", [8, 5000])
def test_equals_transformers(vocab, seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, vocab).astype(np.float32)
    tokens = rng.integers(0, 8, rng.integers(1, 12))
    # Suffixes of the text make sequences match; several of them end in the same token.
    last = int(rng.integers(8))
    biases = {(*map(int, tokens[-n:]), last): float(rng.normal(0, 4)) for n in range(1, 4)}
    biases |= {(last,): 1.5, (3, 1, 4): 2.5, (2,): float("-inf")}
    original = logits.copy()
    shaped = SequenceBias(biases)(tokens, logits)
    assert np.array_equal(shaped, reference(SequenceBiasLogitsProcessor(dict(biases)), tokens, logits))
    assert shaped.dtype == np.float32
    assert np.array_equal(logits, original)

    words = [list(word) for word in biases] + [[5]]
    processor = NoBadWordsLogitsProcessor(words, eos_token_id=[5, 2])
    forbid = bad_words(words, [5, 2])
    assert forbid is not None
    shaped = forbid(tokens, logits)
    assert np.array_equal(shaped, reference(processor, tokens, logits))
    assert shaped[last] == -np.inf  # by the longer sequences, even where it ends the text


def test_a_prefix_longer_than_the_text_does_not_match():
    logits = np.zeros(8, dtype=np.float32)
    assert not SequenceBias({(2, 2, 3): 1.0})(np.array([2]), logits).any()


def test_end_of_text_is_never_a_bad_word():
    assert bad_words([[7], [7]], [7]) is None
    assert bad_words([]) is None


@pytest.mark.parametrize("sequence", [(), (-1,), (1, -2), ("a",), (1.5,)])
def test_bad_sequences(sequence):
    with pytest.raises(UnspoolError, match="sequence_bias takes"):
        SequenceBias({sequence: 1.0})
    with pytest.raises(UnspoolError, match="bad_words_ids takes"):
        bad_words([sequence])


@pytest.mark.parametrize("sequence", [(8,), (1, 8), (8, 1)])
def test_ids_outside_the_vocabulary(sequence):
    with pytest.raises(UnspoolError, match=r"bad_words_ids names token 8.*ends at 7"):
        bad_words([sequence])(np.array([1]), np.zeros(8, dtype=np.float32))
