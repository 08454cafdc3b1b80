"""Threads on one model: each gets the text that it gets alone, and nobody waits for ever."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import unspool
from unspool import Model, UnspoolError
from unspool.conformance.small_model import CURVE, EOS, CountedModel, CountedSession, load
from unspool.decoding.generate import requests
from unspool.decoding.request import GenerationArguments
from unspool.decoding.search import search
from unspool.engine.autoregressive import Request, decode
from unspool.engine.contracts import Scores
from unspool.engine.cost import CostCurve, PassCosts
from unspool.engine.taps import Taps
from unspool.engine.tree import TokenTree
from unspool.engine.turns import turn

PROMPTS = ["ab=1, x(ab=1, x(ab", "count count count", "in .c\nin .c\nin", "x=1, nt"]


class SharedSession(CountedSession):
    """Logits in memory that belongs to the model, as those of OpenVINO are; other threads run meanwhile."""

    model: SharedModel

    def score(self, tree: TokenTree, rows: Sequence[int] | None = None) -> Scores:
        scores = super().score(tree, rows)
        memory = self.model.memory
        memory[:] = np.nan
        time.sleep(0)  # another thread's turn, were there no other turns
        memory[: len(scores.logits)] = scores.logits
        time.sleep(0)
        return Scores(memory[: len(scores.logits)], scores.rows, scores.ms)

    def commit(self, path: Sequence[int]) -> None:
        time.sleep(0)
        super().commit(path)


class SharedModel(CountedModel):
    """One memory for the logits of all sessions."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.memory = np.empty((256, self.vocab_size))

    def open(self, taps: Taps | None = None) -> SharedSession:
        return SharedSession(self)

    def score_many(self, sessions: Any, trees: Any, rows: Any = None) -> list[Scores]:
        wanted = rows or [None] * len(sessions)
        results = []
        for session, tree, picked in zip(sessions, trees, wanted, strict=True):
            scores = session.score(tree, picked)
            # As OpenVINO does: the next session's pass overwrites the memory.
            results.append(Scores(scores.logits.copy(), scores.rows, scores.ms) if len(sessions) > 1 else scores)
        return results


def shared(seed: int = 0) -> Model:
    model = load(seed, SharedModel(seed))
    model.assistant = load(seed, SharedModel(seed))
    return model


def at_once(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """What the calls give, each in a thread of its own."""
    results: list[Any] = [None] * len(calls)

    def work(i: int) -> None:
        try:
            results[i] = calls[i]()
        except BaseException as error:
            results[i] = error

    threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(600)  # minutes on a busy machine; what this is about is for ever
        assert not thread.is_alive(), "two threads wait for each other"
    return results


@pytest.mark.parametrize("threads", [2, 4])
@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "seed": 5}, {"regex": "[a-z=1]*"}], ids=str)
@pytest.mark.parametrize("method", ["plain", "auto", "token_recycling", "draft_model", "pearl"])
def test_each_thread_gets_the_text_it_gets_alone(method: str, options: dict[str, Any], threads: int) -> None:
    options = {"method": method, "max_new_tokens": 24, "chat": False, **options}
    prompts = PROMPTS[:threads]
    alone = [shared().generate(prompt, **options).token_ids for prompt in prompts]
    model = shared()
    for _ in range(2):
        found = at_once([lambda p=prompt: model.generate(p, **options).token_ids for prompt in prompts])
        assert found == alone


def test_methods_may_be_mixed_and_a_draft_model_may_itself_decode() -> None:
    calls = ("pearl", "draft_model", "rsd", "dyspec", "plain", "auto")
    alone = [shared().generate(PROMPTS[0], method=m, max_new_tokens=24, chat=False).token_ids for m in calls]
    model = shared()
    assert model.assistant is not None
    runs = [lambda m=m: model.generate(PROMPTS[0], method=m, max_new_tokens=24, chat=False).token_ids for m in calls]
    runs.append(lambda: model.assistant.generate(PROMPTS[0], method="plain", max_new_tokens=24, chat=False).token_ids)
    found = at_once(runs)
    assert found[:-1] == alone and found[-1] == alone[4]


def test_two_models_that_draft_for_each_other_never_wait_for_each_other() -> None:
    one, other = load(0, SharedModel(0)), load(1, SharedModel(1))
    one.assistant, other.assistant = other, one
    options = {"method": "draft_model", "max_new_tokens": 40, "chat": False}
    alone = [m.generate(PROMPTS[0], **options).token_ids for m in (one, other)]
    found = at_once([lambda m=m: m.generate(PROMPTS[0], **options).token_ids for m in (one, other, one, other)])
    assert found == alone * 2


def test_search_extract_batches_and_streams_take_turns_too() -> None:
    model = shared()
    calls: list[Callable[[], Any]] = [
        lambda: search(model, PROMPTS[0], method="beam", max_new_tokens=6).token_ids,
        lambda: model.extract("ab", "count in x=1", end_token_ids=[EOS, 19]).spans,
        lambda: [r.token_ids for r in model.generate(PROMPTS, method="suffix", max_new_tokens=12, chat=False)],
        lambda: "".join(model.stream(PROMPTS[1], method="token_recycling", max_new_tokens=24, chat=False)),
    ]
    alone = [call() for call in calls]
    assert at_once(calls * 2) == alone * 2


def test_streams_by_turns_of_one_thread_go_on_and_abandoned_ones_hold_nothing_up() -> None:
    model = shared()
    options = {"max_new_tokens": 24, "chat": False}
    alone = [model.generate(prompt, method="pearl", **options).text for prompt in PROMPTS[:2]]
    streams = [iter(model.stream(prompt, method="pearl", **options)) for prompt in PROMPTS[:2]]
    texts = ["", ""]
    left = [next(iter(model.stream(PROMPTS[2], method="pearl", **options)))]  # abandoned at once
    live = {0, 1}
    while live:
        for i in list(live):
            piece = next(streams[i], None)
            texts[i] += piece or ""
            if piece is None:
                live.discard(i)
    assert texts == alone
    del left
    gc.collect()
    abandoned = iter(model.stream(PROMPTS[3], method="pearl", **options))
    next(abandoned)
    closing = threading.Thread(target=abandoned.close)
    closing.start()
    closing.join(10)
    assert not closing.is_alive()
    assert at_once([lambda: model.generate(PROMPTS[0], method="pearl", **options).text]) == alone[:1]


@pytest.mark.parametrize("method", ["plain", "pearl"])
def test_a_stream_that_was_left_or_failed_says_so_when_it_is_read_again(method: str) -> None:
    model = shared()
    left = model.stream(PROMPTS[0], method=method, max_new_tokens=24, chat=False)
    for _ in left:
        break
    failed = model.stream(PROMPTS[0], method=method, chat=False, shapers=[lambda tokens, logits: 1 / 0])
    with pytest.raises(ZeroDivisionError):
        list(failed)
    for stream in (left, failed):
        with pytest.raises(UnspoolError, match="left before its end"):
            list(stream)
        with pytest.raises(RuntimeError, match="left before its end"):
            _ = stream.result
    whole = model.stream(PROMPTS[0], method=method, max_new_tokens=24, chat=False)
    assert "".join(whole) == whole.result.text and list(whole) == []


def test_a_stream_with_two_readers_at_once_tells_the_second_and_serves_the_first() -> None:
    model = shared()
    heard: list[str] = []

    def listen(event: Any) -> None:
        with pytest.raises(UnspoolError, match="is reading this stream") as caught:
            next(iter(stream))
        heard.append(str(caught.value))

    stream = model.stream(PROMPTS[0], method="plain", max_new_tokens=6, chat=False, on_event=listen)
    assert "".join(stream) == stream.result.text == model.generate(PROMPTS[0], max_new_tokens=6, chat=False).text
    assert len(heard) == 9


def test_a_shaper_that_runs_its_own_model_is_refused_and_a_listener_may() -> None:
    model = shared()
    options = {"method": "plain", "max_new_tokens": 4, "chat": False}
    plain = model.generate(PROMPTS[0], **options).token_ids

    def shaper(tokens: Any, logits: Any) -> Any:
        model.generate(PROMPTS[1], **options)
        return logits

    with pytest.raises(UnspoolError, match="middle of a pass"):
        model.generate(PROMPTS[0], shapers=[shaper], **options)
    heard = []
    result = model.generate(
        PROMPTS[0], on_event=lambda event: heard.append(model.generate(PROMPTS[1], **options)), **options
    )
    assert result.token_ids == plain and len(heard) == 7


def test_a_drafter_that_fails_leaves_the_model_to_the_others() -> None:
    model = shared()
    with pytest.raises(ZeroDivisionError):
        model.generate(PROMPTS[0], method="pearl", chat=False, shapers=[lambda tokens, logits: 1 / 0])
    assert at_once([lambda: model.generate(PROMPTS[0], max_new_tokens=3, chat=False).token_ids])[0]


def test_a_cost_curve_is_measured_once_for_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    model, measured = shared(), []

    def calibrate(*_: Any) -> CostCurve:
        measured.append(threading.get_ident())
        time.sleep(0.05)
        return CURVE

    monkeypatch.setattr("unspool.models.calibration.load", lambda *_: None)
    monkeypatch.setattr("unspool.models.calibration.calibrate", calibrate)
    model._costs = None
    found = at_once([model._pass_costs] * 4)
    assert len(measured) == 1 and len(set(map(id, found))) == 1
    assert model._pass_costs(fresh=True) is not found[0] and len(measured) == 2


def test_turns_are_given_in_the_order_they_were_asked_for() -> None:
    model, order = object.__new__(CountedModel), []

    def wait(i: int) -> None:
        with turn(model):
            order.append(i)

    with turn(model):
        threads = []
        for i in range(5):
            thread = threading.Thread(target=wait, args=(i,))
            thread.start()
            threads.append(thread)
            time.sleep(0.02)
        assert order == []
    for thread in threads:
        thread.join(10)
    assert order == [0, 1, 2, 3, 4]


@pytest.mark.model
def test_threads_on_a_real_model() -> None:
    model = unspool.load("smollm2-135m", threads=1, assistant_model="smollm2-135m")
    model._costs = PassCosts(CostCurve((1, 8, 64), (32,), ((10.0, 11.0, 40.0),)))
    prompts = ["List three colours, then list the same three colours again.", "Write a function that reverses a list."]
    for method, more in (
        ("plain", {}),
        ("token_recycling", {"temperature": 0.8, "seed": 3}),
        ("draft_model", {}),
    ):
        options = {"method": method, "max_new_tokens": 12, **more}
        alone = [model.generate(prompt, **options).token_ids for prompt in prompts]
        assert at_once([lambda p=p, o=options: model.generate(p, **o).token_ids for p in prompts]) == alone, method


def test_a_request_that_is_built_by_hand_names_its_assistants() -> None:
    model = shared()
    assert model.assistant is not None
    arguments = GenerationArguments(method="draft_model", chat=False, max_new_tokens=3)
    request = requests(model, [PROMPTS[0]], arguments)[0].request
    assert isinstance(request, Request) and list(request.assistants) == [model.assistant.language_model]
    with turn(model.assistant.language_model), pytest.raises(UnspoolError, match="middle of a pass"):
        list(decode(model.language_model, [request]))
