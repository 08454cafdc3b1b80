"""Beam search against greedy decoding, an exhaustive search, and transformers' own."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from unspool.backends.torch.model import TransformersModel
from unspool.backends.toy import ToyModel
from unspool.engine.search import Candidate, Found, SearchRequest
from unspool.errors import UnspoolError
from unspool.methods.search.beam import BeamOptions, beam

PROMPT = [1, 0]
EOS = 3


def run(model: ToyModel, length: int, **options: float) -> Found:
    return beam(SearchRequest(model, PROMPT, length, frozenset({EOS})), BeamOptions(**options))  # type: ignore[arg-type]


def logprob(model: ToyModel, output: tuple[int, ...]) -> float:
    text = (*PROMPT, *output)
    return sum(math.log(model.probabilities(text[:i])[text[i]]) for i in range(len(PROMPT), len(text)))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("length_penalty", [1.0, 0.0, -1.0])
def test_one_beam_is_greedy_decoding(seed: int, length_penalty: float) -> None:
    model = ToyModel.random(seed=seed, order=3, vocab_size=4)
    output: tuple[int, ...] = ()
    while output[-1:] != (EOS,) and len(output) < 12:
        output = (*output, int(np.argmax(model.probabilities((*PROMPT, *output)))))
    found = run(model, 12, num_beams=1, length_penalty=length_penalty)
    assert found.candidates == (
        Candidate(
            output,
            pytest.approx(logprob(model, output)),
            pytest.approx(logprob(model, output) / len(output) ** length_penalty),
            "stop" if output[-1] == EOS else "length",
        ),
    )
    assert found.evaluated_tokens == len(output)


@pytest.mark.parametrize("seed", range(6))
def test_wide_enough_it_finds_the_best_of_all(seed: int) -> None:
    """Without end of text, every output has the same length: the best ones must be those of a full enumeration."""
    model = ToyModel.random(seed=seed, order=3, vocab_size=4)
    found = beam(SearchRequest(model, PROMPT, 4), BeamOptions(num_beams=64))
    every = sorted(itertools.product(range(4), repeat=4), key=lambda output: -logprob(model, output))
    assert [candidate.token_ids for candidate in found.candidates] == every[:64]


def slow(model: ToyModel, length: int, width: int, penalty: float) -> list[tuple[int, ...]]:
    """Beam search over a full enumeration of each step, from transformers' definition."""
    running: list[tuple[int, ...]] = [()]
    finished: list[tuple[float, tuple[int, ...]]] = []
    for step in range(1, length + 1):
        steps = [(*output, token) for output in running for token in range(4)]
        steps = sorted(steps, key=lambda output: -logprob(model, output))[: 2 * width]
        over = [output for output in steps if output[-1] == EOS or step == length]
        best = [output for output in over if output in steps[:width]]
        finished += [(logprob(model, output) / step**penalty, output) for output in best]
        finished = sorted(finished, key=lambda pair: -pair[0])[:width]
        running = [output for output in steps if output not in over][:width]
        if not running:
            break
        if len(finished) == width and logprob(model, running[0]) / step**penalty <= finished[-1][0]:
            break
    return [output for _, output in finished]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(("width", "penalty"), [(2, 1.0), (3, 1.0), (3, 0.0), (4, 2.0)])
def test_equals_a_search_that_enumerates_each_step(seed: int, width: int, penalty: float) -> None:
    model = ToyModel.random(seed=seed, order=3, vocab_size=4)
    found = run(model, 9, num_beams=width, length_penalty=penalty)
    assert [candidate.token_ids for candidate in found.candidates] == slow(model, 9, width, penalty)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("penalty", "eos"), [(1.0, [3]), (1.0, [3, 5]), (0.0, [3]), (1.5, [3, 5])])
def test_equals_transformers(seed: int, penalty: float, eos: list[int]) -> None:
    """On a small model of random weights: outputs end early and late, and beams are overtaken."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=24,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        initializer_range=0.6,
    )
    network = LlamaForCausalLM(config).eval()
    model = TransformersModel.from_pretrained_model(network)
    network.generation_config = GenerationConfig()
    ids = [1, 7, 4]
    out = network.generate(
        input_ids=torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        num_beams=3,
        num_return_sequences=3,
        length_penalty=penalty,
        do_sample=False,
        max_new_tokens=12,
        eos_token_id=eos,
        pad_token_id=23,
        return_dict_in_generate=True,
        output_scores=True,
    )
    found = beam(SearchRequest(model, ids, 12, frozenset(eos)), BeamOptions(length_penalty=penalty))
    for candidate, row, score in zip(found.candidates, out.sequences, out.sequences_scores, strict=True):
        output = row[len(ids) :].tolist()
        assert list(candidate.token_ids) == output[: len(candidate.token_ids)]
        assert set(output[len(candidate.token_ids) :]) <= {23}  # padding
        assert candidate.score == pytest.approx(float(score), abs=1e-5)


@pytest.mark.parametrize(
    ("options", "message"), [({"num_beams": 0}, "num_beams"), ({"length_penalty": math.nan}, "length_penalty")]
)
def test_bad_options(options: dict[str, float], message: str) -> None:
    with pytest.raises(UnspoolError, match=message):
        BeamOptions(**options)  # type: ignore[arg-type]
