"""T2 on the toy model: the greedy and the same-noise rule give plain decoding's tokens, whatever was drafted."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from tests.conformance.harness import SampledDrafter, decode, draw_independent, plain, sample_tree, stochastic_beam
from unspool.backends.toy import ToyModel
from unspool.conformance.enumeration import TextTarget
from unspool.conformance.stubs import EmptyDrafter, EosDrafter, OracleDrafter, RandomDrafter
from unspool.engine.contracts import Drafter
from unspool.engine.tree import TokenTree
from unspool.methods.acceptance._exact_match import ExactMatch

LENGTH = 48


class Likeliest:
    """A ``Chance`` without noise."""

    def accept(self, probability: float) -> bool:
        raise AssertionError("following tests nothing")

    def draw(self, p: np.ndarray) -> int:
        return int(p.argmax())


MODEL = ToyModel.random(seed=3, vocab_size=5, order=3, floor=0.02)
PROMPT = (1, 4, 2, 0)


def drafters(text: tuple[int, ...]) -> dict[str, Drafter]:
    return {
        "empty": EmptyDrafter(),
        "random": RandomDrafter(5, seed=1),
        "oracle": OracleDrafter(text),
        "end of text": EosDrafter(2, text[:12]),
        "beam": SampledDrafter(MODEL.related(0.3), stochastic_beam(3, 3)),
        "duplicated siblings": SampledDrafter(
            MODEL.related(0.3), partial(sample_tree, siblings=draw_independent, widths=(3, 2))
        ),
    }


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("name", drafters(()))
def test_tokens_are_those_of_plain_decoding(name: str, temperature: float) -> None:
    for seed in range(8):
        reference = plain(MODEL, PROMPT, LENGTH, seed=seed, temperature=temperature)
        drafter = drafters(PROMPT + reference)[name]
        run = decode(MODEL, drafter, ExactMatch(), PROMPT, LENGTH, seed=seed, temperature=temperature)
        assert run.tokens == reference


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_perfect_draft_is_accepted_whole(temperature: float) -> None:
    reference = plain(MODEL, PROMPT, LENGTH, seed=7, temperature=temperature)
    run = decode(
        MODEL,
        OracleDrafter(PROMPT + reference),
        ExactMatch(),
        PROMPT,
        LENGTH,
        seed=7,
        temperature=temperature,
        budget=8,
    )
    assert run.rounds == LENGTH // 8
    assert run.accepted == run.drafted


def test_greedy_path_ends_where_no_child_holds_the_argmax() -> None:
    first = int(MODEL.probabilities(PROMPT).argmax())
    second = int(MODEL.probabilities((*PROMPT, first)).argmax())
    third = int(MODEL.probabilities((*PROMPT, first, second)).argmax())
    wrong = (first + 1) % 5
    tree = TokenTree((PROMPT[-1], wrong, first, second, (third + 1) % 5), (-1, 0, 0, 2, 3))
    decision = ExactMatch().decide(TextTarget(MODEL, PROMPT, tree, Likeliest()), None)  # type: ignore[arg-type]
    assert decision.path == (0, 2, 3)
    assert decision.token == third
