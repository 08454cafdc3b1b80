"""What experiments compute themselves: alignment of a batch, replayed drafts, exact acceptance."""

from __future__ import annotations

import pytest

from unspool.engine.trace import StepEvent
from unspool.experiments._batching import alignment
from unspool.experiments._replay import Candidate, Text, fixed, pearl, product, replay
from unspool.experiments.rsd import PAIRS, accepted_of


def step(batch_pass: int, row: int, position: int) -> StepEvent:
    return StepEvent(
        row=row,
        index=0,
        position=position,
        tokens=(1,),
        parents=(-1,),
        sources=("root",),
        accepted=(0,),
        emitted=(2,),
        margins=(1.0,),
        logprobs=None,
        draft_ms=0,
        score_ms=0,
        accept_ms=0,
        observe_ms=0,
        batch_pass=batch_pass,
    )


def test_alignment_counts_passes_of_several_rows() -> None:
    steps = [step(0, 0, 10), step(0, 1, 10), step(1, 0, 11), step(1, 1, 14), step(2, 0, 12)]
    assert alignment(steps) == {"passes": 3, "several": 2, "equal": 1, "padded": 3, "slots": 20 + 28}


def text(right: str, q: float = 0.5) -> Text:
    """A text whose drafted tokens are right where there is a 1."""
    output = list(range(len(right)))
    drafted = [Candidate(token if mark == "1" else -1, q, 0.0) for token, mark in zip(output, right, strict=True)]
    return Text(output, drafted)


def test_replayed_drafts_cost_what_the_loop_would_have_spent() -> None:
    assert replay(text("1111111"), fixed(3)) == (3 + 3, 2)  # three drafts and a bonus, twice; the text ends a draft
    assert replay(text("0000"), fixed(3)) == (3 + 3 + 2 + 1, 4)  # a draft never goes beyond the end of the text
    assert replay(text("1101"), fixed(1)) == (1 + 1 + 1, 3)
    # The product of two tokens of 0.5 is 0.25, so that the chance of a rejection is above 0.7 then.
    assert replay(text("11111111"), product(0.7)) == (2 + 2 + 2, 3)


def test_pearl_tests_pending_tokens_and_the_first_of_the_next_block() -> None:
    # A pass tests one token; where it is right the next passes test two, and there is no bonus token.
    passes, tests, rejections = pearl(text("11111"), 2)
    assert (passes, tests, rejections) == (3, 5, 0)
    passes, tests, rejections = pearl(text("010"), 2)
    assert (passes, rejections) == (3, 2)


def test_draws_without_replacement_are_accepted_as_the_paper_says() -> None:
    far = PAIRS["far"]
    assert accepted_of(2, far, replacement=True) == pytest.approx(0.375, abs=2e-3)
    assert accepted_of(2, far, replacement=False) == pytest.approx(0.733, abs=2e-3)
