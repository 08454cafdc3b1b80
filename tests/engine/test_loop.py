"""What the loop refuses, cleans up and tells; what it decodes is the conformance suite's business."""

from __future__ import annotations

import pytest

from unspool.acceptance.follow import Follow
from unspool.backends.toy import ToyModel, ToySession
from unspool.drafters.plain import Plain
from unspool.engine.contracts import Context
from unspool.engine.loop import MAX_TREE_NODES, Request, decode
from unspool.engine.options import GenerationOptions
from unspool.engine.statistics import summarise
from unspool.engine.trace import EndEvent, StepEvent
from unspool.engine.tree import TokenTree
from unspool.errors import UnspoolError


def request(tokens: list[int], drafter: object | None = None, **options: object) -> Request:
    settings = GenerationOptions(**({"max_new_tokens": 8} | options))
    return Request(tokens, drafter or Plain(), Follow(), settings)  # type: ignore[arg-type]


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
    events = list(decode(ToyModel.random(vocab_size=4), [Request([0, 1], Plain(), Follow(), settings, stopping=stop)]))
    assert summarise(events).tokens == 3
    assert isinstance(events[-1], EndEvent) and events[-1].reason == "stopping_criteria"


def test_statistics_come_from_the_events_alone() -> None:
    oracle = TokenTree.chain([0, 0])
    model = ToyModel.random(vocab_size=4, seed=2)
    statistics = summarise(list(decode(model, [request([0, 0], Wrong(oracle), max_new_tokens=1)])))
    assert (statistics.tokens, statistics.passes, statistics.nodes) == (1, 1, 1)
    assert statistics.by_source == {"model": 1} and statistics.mean_accepted_tokens == 1
    assert 0 <= statistics.overhead < 1
