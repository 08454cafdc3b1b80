"""The draft model of ``auto``: when a chain is begun, when it ends, and that it pays for what it reads."""

from __future__ import annotations

import numpy as np
import pytest

from unspool import methods
from unspool.backends.toy import ToyModel
from unspool.drafters import auto_assistant
from unspool.drafters.auto import AcceptanceRates, Auto
from unspool.drafters.auto_assistant import UNSEEN, AutoAssistant
from unspool.engine.contracts import Context
from unspool.engine.cost import CostCurve, PassCosts
from unspool.engine.loop import Request, decode
from unspool.engine.options import GenerationOptions
from unspool.engine.trace import StepEvent

TARGET = ToyModel.random(vocab_size=6, order=2, seed=11)
COST = np.full(64, 10.0)


def sure(bucket: int, depth: int) -> float:
    return 0.9


def context(n: int = 3) -> Context:
    return Context([i % 3 for i in range(n)], n, 0, 0.0)


def chain(drafted_ms: float, rate: auto_assistant.Rate = sure, other: float = 0.1, n: int = 3) -> int:
    costs = PassCosts(CostCurve((1, 64), (32,), ((10.0, 10.0),)))
    assistant = AutoAssistant(TARGET, 6, costs)
    costs.drafted_ms = drafted_ms
    costs.drafted = lambda ms: None  # type: ignore[method-assign]  # a stated price
    return len(assistant.chain(context(n), 64, rate, COST, other))


def test_a_chain_is_begun_where_it_promises_more_than_the_rest() -> None:
    assert chain(2.0) > 2
    assert chain(9.5) == 0, "ten tokens a pass of ten milliseconds are no more than plain decoding"
    assert chain(2.0, other=0.5) == 0, "the other drafts are better"
    assert chain(2.0, rate=lambda bucket, depth: 0.1) == 0


def test_a_chain_ends_by_what_was_drafted() -> None:
    """Before a token is known it is believed; what it turns out to be ends the chain."""
    assert chain(0.5) > 10
    assert chain(0.5, rate=lambda bucket, depth: 0.9 if bucket == UNSEEN else 0.05) == 1


def test_reading_a_long_text_makes_beginning_dearer() -> None:
    assert chain(2.0, other=0.15) > 0
    assert chain(2.0, other=0.15, n=2000) == 0


def test_it_never_leaves_the_context_of_the_draft_model() -> None:
    costs = PassCosts(CostCurve((1, 64), (32,), ((10.0, 10.0),)))
    short = AutoAssistant(ToyModel(TARGET.table, max_length=8), 6, costs)
    assert len(short.chain(context(6), 64, sure, COST, 0.1)) == 2
    assert short.chain(context(8), 64, sure, COST, 0.1) == []


def steps(draft: ToyModel, temperature: float) -> tuple[list[StepEvent], AcceptanceRates]:
    rates, costs = AcceptanceRates(), PassCosts(CostCurve((1, 64), (32,), ((100.0, 100.0),)))
    auto = Auto({}, costs, rates, assistant=AutoAssistant(draft, 6, costs))
    options = GenerationOptions(max_new_tokens=120, temperature=temperature, seed=3)
    rule = methods.acceptance(None, options.greedy, methods.Surroundings(TARGET))
    events = decode(TARGET, [Request([0, 1, 2], auto, rule, options)])
    return [event for event in events if isinstance(event, StepEvent)], rates


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_draft_model_that_is_always_right_is_trusted(temperature: float) -> None:
    """Greedy, and with the very noise of the positions."""
    made, rates = steps(TARGET, temperature)
    assert len(made) < 30
    assert all(set(step.sources[1:]) <= {auto_assistant.SOURCE} for step in made)
    assert rates.rate(auto_assistant.SOURCE, UNSEEN, 1) > 0.85


def test_a_draft_model_that_is_always_wrong_is_asked_less() -> None:
    wrong = ToyModel((1 - TARGET.table) / 5)  # likeliest is what the target likes least
    made, _ = steps(wrong, 0.0)
    asked = [len(step.tokens) > 1 for step in made]
    assert asked[0] and sum(asked[60:]) < 20


def test_trust_that_was_lost_comes_back_slowly() -> None:
    rates = AcceptanceRates()
    for _ in range(100):
        rates.update(auto_assistant.SOURCE, UNSEEN, 1, hit=False)
    assert rates.rate(auto_assistant.SOURCE, UNSEEN, 1) < 0.1
    for _ in range(10):
        rates.relax(auto_assistant.SOURCE, UNSEEN)
    assert rates.rate(auto_assistant.SOURCE, UNSEEN, 1) < 0.15
    for _ in range(500):
        rates.relax(auto_assistant.SOURCE, UNSEEN)
    assert rates.rate(auto_assistant.SOURCE, UNSEEN, 1) == pytest.approx(0.7, abs=0.01)
