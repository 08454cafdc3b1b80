"""What the loop records for a trace on request: alternatives, ranks, and a call for every event."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trace.traces import PROMPT, run, toy
from unspool import Model, UnspoolError
from unspool.decoding.results import Result
from unspool.engine.target import ShapedTarget
from unspool.engine.trace import Event, StepEvent


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return toy(tmp_path / "model")


def steps(result: Result) -> list[StepEvent]:
    return [event for event in result.trace if isinstance(event, StepEvent)]


def by_token(result: Result, name: str) -> list[Any]:
    return [value for step in steps(result) for value in getattr(step, name)]


@pytest.mark.parametrize("method", ["plain", "token_recycling"])
def test_alternatives_are_the_best_tokens_of_each_emitted_ones_own_distribution(model: Model, method: str) -> None:
    result = run(model, method=method, temperature=0.7, seed=3)
    text = [*PROMPT]
    ranks = by_token(result, "ranks")
    for token, best, rank in zip(result.token_ids, by_token(result, "alternatives"), ranks, strict=True):
        p = model.language_model.probabilities(text) ** (1 / 0.7)  # type: ignore[attr-defined]
        order = np.argsort(-p, kind="stable")
        assert [i for i, _ in best] == order[:4].tolist()
        np.testing.assert_allclose([value for _, value in best], np.log(p / p.sum())[order[:4]], rtol=1e-9)
        assert rank == order.tolist().index(token)
        text.append(token)
    assert len(set(ranks)) > 1, "a sampled text should not hold the best token everywhere"


def test_alternatives_hold_only_tokens_that_can_follow(model: Model) -> None:
    result = run(model, alternatives=20, temperature=1.0, top_k=3)
    assert {len(best) for best in by_token(result, "alternatives")} == {3}
    assert {len(best) for best in by_token(run(model, alternatives=20), "alternatives")} == {8}


def test_equal_tokens_rank_by_id() -> None:
    from unspool.engine.options import GenerationOptions
    from unspool.engine.tree import TokenTree

    logits = np.array([[1.0, 2.0, 2.0, 0.0]])
    target = ShapedTarget(TokenTree.chain([0]), logits, [0], [], GenerationOptions())
    assert [target.rank(0, token) for token in range(4)] == [2, 0, 1, 3]
    assert [token for token, _ in target.alternatives(0, 4)] == [1, 2, 0, 3]


def test_log_probabilities_come_with_alternatives_and_the_text_stays_the_same(model: Model) -> None:
    plain, recorded = run(model, alternatives=0), run(model)
    assert recorded.token_ids == plain.token_ids
    for step in steps(recorded):
        assert step.logprobs is not None and step.alternatives is not None
        for token, value, best in zip(step.emitted, step.logprobs, step.alternatives, strict=True):
            assert dict(best).get(token, value) == pytest.approx(value)


def test_nothing_is_recorded_or_computed_unless_asked_for(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("alternatives", "rank", "logprob"):
        monkeypatch.setattr(ShapedTarget, name, lambda *_: pytest.fail("computed"))
    for step in steps(run(model, alternatives=0)):
        assert step.alternatives is None and step.ranks is None and step.logprobs is None


@pytest.mark.parametrize("number", [-1, 21])
def test_the_number_of_alternatives_is_bounded(model: Model, number: int) -> None:
    with pytest.raises(UnspoolError, match=rf"alternatives must lie in 0 to 20, not {number}"):
        run(model, alternatives=number)


def test_every_event_is_told_as_it_happens(model: Model) -> None:
    told: list[Event] = []
    stream = model.stream(PROMPT, method="plain", max_new_tokens=5, on_event=told.append)
    seen = [len(told) for _ in stream]
    assert told == stream.result.trace
    assert seen and seen == sorted(set(seen)), "events came only at the end"


def test_an_error_of_the_listener_ends_the_run_and_closes_its_session(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unspool.backends.toy import ToySession

    closed: list[ToySession] = []
    monkeypatch.setattr(ToySession, "close", lambda session: closed.append(session))  # noqa: PLW0108 (binds)

    def refuse(event: Event) -> None:
        if isinstance(event, StepEvent):
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        run(model, on_event=refuse)
    assert len(closed) == 1
