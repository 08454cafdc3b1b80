"""What the loop refuses, cleans up and tells; what it decodes is the conformance suite's business."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from unspool.backends.toy import ToyModel, ToySession
from unspool.engine.autoregressive import MAX_TREE_NODES, Request, decode, extend
from unspool.engine.contracts import Context, Decision, Target
from unspool.engine.noise import rule_generator
from unspool.engine.options import GenerationOptions
from unspool.engine.statistics import summarise
from unspool.engine.trace import EndEvent, StepEvent
from unspool.engine.tree import TokenTree
from unspool.errors import UnspoolError
from unspool.methods.acceptance._exact_match import ExactMatch
from unspool.methods.drafters.plain import Plain


def request(tokens: list[int], drafter: object | None = None, **options: object) -> Request:
    settings = GenerationOptions(**({"max_new_tokens": 8} | options))
    return Request(tokens, drafter or Plain(), ExactMatch(), settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tokens", "limit", "message"),
    [
        ([], 8, "empty"),
        ([4], 8, "vocabulary"),
        ([-1], 8, "vocabulary"),
        ([0] * 16, 1, "shorten"),
        ([0] * 10, 7, "at most 6"),
    ],
)
def test_a_request_that_cannot_be_served_is_refused_before_any_work(
    tokens: list[int], limit: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ToyModel.random(vocab_size=4, max_length=16)
    monkeypatch.setattr(ToySession, "score", lambda *_: pytest.fail("scored"))
    with pytest.raises(UnspoolError, match=message):
        decode(model, [request([0, 1]), request(tokens, max_new_tokens=limit)])


def test_the_context_may_be_filled_to_its_last_token() -> None:
    events = list(decode(ToyModel.random(vocab_size=4, max_length=16), [request([0] * 10, max_new_tokens=6)]))
    assert summarise(events).tokens == 6


class Wrong:
    def __init__(self, tree: TokenTree) -> None:
        self.tree = tree

    def start(self, context: Context) -> None: ...

    def propose(self, context: Context, budget: int) -> TokenTree:
        return self.tree

    def observe(self, step: object) -> None: ...


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (TokenTree.chain([2, 1]), "root"),
        (TokenTree.chain([1, 4]), "vocabulary"),
        (TokenTree((1,) * (MAX_TREE_NODES + 1), (-1,) + (0,) * MAX_TREE_NODES), "budget"),
    ],
)
def test_a_drafter_that_breaks_the_contract_is_named(tree: TokenTree, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(decode(ToyModel.random(vocab_size=4), [request([0, 1], Wrong(tree))]))


def test_sessions_are_closed_when_the_caller_stops_early(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []
    original = ToySession.close
    monkeypatch.setattr(ToySession, "close", lambda self: (closed.append(self), original(self)))
    events = decode(ToyModel.random(vocab_size=4), [request([0, 1]), request([1, 2])])
    for event in events:
        if isinstance(event, StepEvent):
            break
    events.close()  # type: ignore[attr-defined]
    assert len(closed) == 2


def test_stopping_ends_after_the_token_that_it_is_told_of() -> None:
    seen: list[int] = []

    def stop(token: int) -> str | None:
        seen.append(token)
        return "stopping_criteria" if len(seen) == 3 else None

    settings = GenerationOptions(max_new_tokens=8)
    events = list(
        decode(ToyModel.random(vocab_size=4), [Request([0, 1], Plain(), ExactMatch(), settings, stopping=stop)])
    )
    assert summarise(events).tokens == 3
    assert isinstance(events[-1], EndEvent) and events[-1].reason == "stopping_criteria"


def test_statistics_come_from_the_events_alone() -> None:
    oracle = TokenTree.chain([0, 0])
    model = ToyModel.random(vocab_size=4, seed=2)
    statistics = summarise(list(decode(model, [request([0, 0], Wrong(oracle), max_new_tokens=1)])))
    assert (statistics.tokens, statistics.passes, statistics.nodes) == (1, 1, 1)
    assert statistics.by_source == {"model": 1} and statistics.mean_accepted_tokens == 1
    assert 0 <= statistics.overhead < 1


@pytest.mark.parametrize("held", [0, 2, 4])
def test_a_request_goes_on_from_the_session_it_brings_and_closes_it(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, prompt = ToyModel.random(vocab_size=4, order=3), [0, 1, 2, 3, 0]
    session = model.open()
    extend(session, prompt[:held])
    assert session.cache == list(zip(prompt[:held], range(held), strict=True))
    scored, closed = [], []
    score, close = ToySession.score, ToySession.close
    monkeypatch.setattr(
        ToySession, "score", lambda self, *a, **k: (scored.append((self, len(a[0]))), score(self, *a, **k))[1]
    )
    monkeypatch.setattr(ToySession, "close", lambda self: (closed.append(self), close(self)))
    continued = replace(request(prompt), session=session)
    ours, plain = (
        [event.emitted for event in decode(model, [r]) if isinstance(event, StepEvent)]
        for r in (continued, request(prompt))
    )
    assert ours == plain and session in closed
    assert [size for who, size in scored if who is session][:1] == ([4 - held] if held < 4 else [1])


def test_a_session_that_holds_the_whole_prompt_is_refused() -> None:
    model = ToyModel.random(vocab_size=4)
    session = model.open()
    extend(session, [0, 1])
    with pytest.raises(UnspoolError, match="at most 1"):
        decode(model, [replace(request([0, 1]), session=session)])


def test_a_long_text_is_stored_in_blocks_as_wide_as_the_session_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    score = ToySession.score
    monkeypatch.setattr(ToySession, "score", lambda self, t, rows=None: (sizes.append(len(t)), score(self, t, rows))[1])
    monkeypatch.setattr(ToySession, "max_depth", property(lambda self: 200 - self.length % 200))
    session = ToyModel.random(vocab_size=4).open()
    extend(session, [1] * 300)
    assert sizes == [128, 72, 100] and session.length == 300


def test_rules_get_fresh_randomness_in_each_round_of_each_row() -> None:
    """What rejection sampling draws rests on the seed and on where the round starts."""
    found: list[tuple[int, float]] = []

    class Recording(ExactMatch):
        def decide(self, target: Target, rng: Callable[[], np.random.Generator]) -> Decision:
            found.append((seed, rng().random()))
            return super().decide(target, rng)

    for seed in (3, 4):
        settings = {"temperature": 1.0, "seed": seed, "max_new_tokens": 5}
        asked = replace(request([0, 1], **settings), rule=Recording())
        assert len(list(decode(ToyModel.random(vocab_size=4), [asked]))) > 5
    assert found == [(seed, rule_generator(seed, 2 + i).random()) for seed in (3, 4) for i in range(5)]
    assert len({number for _, number in found}) == 10
