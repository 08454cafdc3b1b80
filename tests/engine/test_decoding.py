"""The loop as an object: rows that come, go and fail while others are decoded."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.engine.test_turns import SharedModel, at_once
from tests.methods.batching.reading import texts
from unspool.backends.toy import ToyModel, ToySession
from unspool.engine.autoregressive import PREFILL_BLOCK, Decoding, Request, decode, extend
from unspool.engine.batch import OpenRow
from unspool.engine.options import GenerationOptions
from unspool.engine.taps import Taps
from unspool.engine.trace import EndEvent, Event, PrefillEvent, StartEvent, StepEvent
from unspool.engine.tree import TokenTree
from unspool.errors import UnspoolError
from unspool.methods.acceptance._exact_match import ExactMatch
from unspool.methods.drafters.plain import Plain

PROMPTS = [[0, 1, 2, 0, 1], [5], [2, 4, 2, 4, 2]]


def toy() -> ToyModel:
    return ToyModel.random(vocab_size=6, order=2, seed=11, max_length=2048)


def request(prompt: list[int], tokens: int = 8, **fields: Any) -> Request:
    options = GenerationOptions(max_new_tokens=tokens, temperature=0.9, seed=7)
    return replace(Request(prompt, Plain(), ExactMatch(), options), **fields)


def alone(prompt: list[int], tokens: int = 8) -> list[int]:
    return texts(decode(toy(), [request(prompt, tokens)]), 1)[0]


def run(decoding: Decoding) -> list[Event]:
    events: list[Event] = []
    while not decoding.done:
        events += decoding.step()
    return events


def ends(events: Sequence[Event]) -> dict[int, str]:
    return {event.row: event.reason for event in events if isinstance(event, EndEvent)}


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[ToySession]]:
    """Sessions that are open; each is closed once."""
    sessions: list[ToySession] = []
    open_, close = ToyModel.open, ToySession.close

    def opened(self: ToyModel, taps: Taps | None = None) -> ToySession:
        sessions.append(open_(self))
        return sessions[-1]

    monkeypatch.setattr(ToyModel, "open", opened)
    monkeypatch.setattr(ToySession, "close", lambda self: (sessions.remove(self), close(self)))
    yield sessions
    assert sessions == []


class Closable(Plain):
    closed = 0

    def close(self) -> None:
        self.closed += 1


def test_a_row_that_is_added_while_others_are_decoded_is_the_row_alone(live: list[ToySession]) -> None:
    decoding = Decoding(toy())
    assert decoding.done and decoding.step() == []
    events: list[Event] = []
    for number, prompt in enumerate(PROMPTS):
        assert decoding.add(request(prompt)) == number
        events += decoding.step() + decoding.step()
    events += run(decoding)
    assert texts(events, 3) == [alone(prompt) for prompt in PROMPTS]
    again = decoding.add(request(PROMPTS[1]))  # also after all others have ended
    assert again == 3 and not decoding.done
    assert texts(run(decoding), 4)[3] == alone(PROMPTS[1])


def test_a_request_that_cannot_be_served_changes_nothing(live: list[ToySession]) -> None:
    with Decoding(toy()) as decoding:
        decoding.add(request(PROMPTS[0]))
        events = decoding.step()
        with pytest.raises(UnspoolError, match="vocabulary"):
            decoding.add(request([6]))
        assert decoding.add(request(PROMPTS[1])) == 1
        assert texts(events + run(decoding), 2) == [alone(PROMPTS[0]), alone(PROMPTS[1])]


def test_cancel_frees_the_memory_of_a_row_at_once_whatever_it_is_doing(live: list[ToySession]) -> None:
    model = toy()
    brought = model.open()
    extend(brought, [0, 1])
    rows = {
        "ready": request(PROMPTS[0]),
        "reading": request([1] * 300),
        "other": request(PROMPTS[1]),
        "waiting": request([0, 1, 2], session=brought),
    }
    drafters = {name: Closable() for name in rows}
    plan = Scripted(window=3)
    decoding = Decoding(model, plan)
    numbers = {name: decoding.add(replace(row, drafter=drafters[name])) for name, row in rows.items()}
    events = decoding.step()
    assert len(live) == 4 and brought in live
    for left, name in ((3, "waiting"), (2, "reading"), (1, "ready")):
        decoding.cancel(numbers[name])
        assert len(live) == left and drafters[name].closed == 1
        decoding.cancel(numbers[name])
    assert brought not in live
    first = decoding.step()
    assert [(event.row, event.reason) for event in first[:3] if isinstance(event, EndEvent)] == [
        (numbers[name], "cancelled") for name in ("waiting", "reading", "ready")
    ]
    events += first + run(decoding)
    decoding.cancel(numbers["other"])
    assert decoding.done and ends(events)[numbers["other"]] == "length"
    assert texts(events, 4)[numbers["other"]] == alone(PROMPTS[1])
    assert {name: drafter.closed for name, drafter in drafters.items()} == dict.fromkeys(rows, 1)
    with pytest.raises(UnspoolError, match="no row 4"):
        decoding.cancel(4)


def test_the_end_of_a_row_that_was_cancelled_is_still_returned_when_no_other_is_left() -> None:
    decoding = Decoding(toy())
    decoding.add(request(PROMPTS[0]))
    decoding.cancel(0)
    assert not decoding.done
    assert decoding.step() == [EndEvent(0, "cancelled")] and decoding.done


class Scripted:
    """All rows, in a window."""

    def __init__(self, window: int, shortest_first: bool = False) -> None:
        self.window, self.shortest_first = window, shortest_first

    def choose(self, rows: Sequence[OpenRow]) -> Sequence[int]:
        return [row.index for row in rows]


def test_the_window_and_the_order_of_the_plan_hold_for_rows_that_are_added_later(live: list[ToySession]) -> None:
    decoding = Decoding(toy(), Scripted(1, shortest_first=True))
    decoding.add(request([1] * 4))
    events = decoding.step()
    for length in (3, 2, 2, 1):
        decoding.add(request([1] * length))
    while not decoding.done:
        events += decoding.step()
        assert len(live) <= 1
    assert [event.row for event in events if isinstance(event, StartEvent)] == [0, 4, 2, 3, 1]


class PlantedError(RuntimeError):
    pass


def fault(*_: object, **__: object) -> Any:
    raise PlantedError("planted")


def broken(base: Any, method: str, after: int = 0) -> Any:
    """An object of the class, one of whose methods fails from the call ``after`` on."""
    calls = 0

    def fails(self: object, *args: Any) -> Any:
        nonlocal calls
        calls += 1
        return getattr(base, method)(self, *args) if calls <= after else fault()

    return type("Broken", (base,), {method: fails})()


class Free:
    """A constraint that allows everything."""

    def allowed(self, path: Sequence[int]) -> Any:
        return None

    def forced(self) -> Sequence[int]:
        return ()

    def advance(self, tokens: Sequence[int]) -> None: ...


class FaultySession(ToySession):
    def score(self, tree: TokenTree, rows: Any = None) -> Any:
        return fault()


FAULTS: dict[str, Callable[[], dict[str, Any]]] = {
    **{
        f"drafter.{method}": lambda m=method, n=after: {"drafter": broken(Closable, m, n)}
        for method, after in (("start", 0), ("propose", 2), ("observe", 2), ("close", 0))
    },
    "tree": lambda: {"drafter": type("Wrong", (Plain,), {"propose": lambda *_: TokenTree.chain([0, 9])})()},
    "rule": lambda: {"rule": broken(ExactMatch, "decide", 2)},
    **{
        f"constraint.{method}": lambda m=method: {"constraint": broken(Free, m, 2)}
        for method in ("allowed", "forced", "advance")
    },
    "shaper": lambda: {"shapers": [fault]},
    "stopping": lambda: {"stopping": fault},
    "prompt": lambda: {"session": FaultySession(toy())},
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_one_row_ends_that_row_alone(name: str, live: list[ToySession]) -> None:
    made = FAULTS[name]()
    if "session" in made:
        live.append(made["session"])
    drafter = made.setdefault("drafter", Closable())
    requests = [request(PROMPTS[0]), request([5, 1], **made), request(PROMPTS[2])]
    events: list[Event] = []
    with pytest.raises(ValueError if name == "tree" else PlantedError) as caught:
        for event in decode(toy(), requests):
            events.append(event)
    expected = [alone(PROMPTS[0]), alone(PROMPTS[2])]
    assert [texts(events, 3)[0], texts(events, 3)[2]] == expected
    assert ends(events) == {0: "length", 1: "error", 2: "length"}
    (error,) = [event.error for event in events if isinstance(event, EndEvent) and event.error is not None]
    assert error is caught.value
    assert name in ("drafter.close", "tree") or drafter.closed == 1
    assert texts(events, 3)[1] == alone([5, 1])[: len(texts(events, 3)[1])]


def test_a_row_whose_drafter_and_its_closing_fail_names_both(live: list[ToySession]) -> None:
    drafter = broken(Closable, "propose")
    type(drafter).close = lambda self: 1 / 0
    decoding = Decoding(toy())
    decoding.add(request(PROMPTS[0], drafter=drafter))
    decoding.add(request(PROMPTS[1]))
    events = run(decoding)
    error = next(event.error for event in events if isinstance(event, EndEvent))
    assert isinstance(error, ZeroDivisionError) and isinstance(error.__context__, PlantedError)
    assert texts(events, 2)[1] == alone(PROMPTS[1])


def test_a_row_that_cannot_be_closed_when_it_is_cancelled_ends_in_error(live: list[ToySession]) -> None:
    decoding = Decoding(toy())
    decoding.add(request(PROMPTS[0], drafter=broken(Closable, "close")))
    decoding.step()
    decoding.cancel(0)
    assert live == []
    assert ends(run(decoding)) == {0: "error"}


def test_ctrl_c_while_a_row_is_closed_closes_everything_once(live: list[ToySession]) -> None:
    class Interrupted(Closable):
        def close(self) -> None:
            super().close()
            raise KeyboardInterrupt

    drafters = [Interrupted(), Closable()]
    decoding = Decoding(toy())
    for tokens, drafter in zip((1, 9), drafters, strict=True):
        decoding.add(request(PROMPTS[0], tokens, drafter=drafter))
    with pytest.raises(KeyboardInterrupt):
        decoding.step()
    assert live == [] and decoding.done and [drafter.closed for drafter in drafters] == [1, 1]


def test_the_first_of_several_faults_is_raised() -> None:
    first, second = PlantedError("first"), PlantedError("second")

    def late(error: Exception, after: int) -> Callable[[int], None]:
        seen: list[int] = []

        def stop(token: int) -> None:
            seen.append(token)
            if len(seen) > after:
                raise error

        return stop

    requests = [request([1], stopping=late(second, 3)), request([2], stopping=late(first, 1))]
    with pytest.raises(PlantedError) as caught:
        list(decode(toy(), requests))
    assert caught.value is first


@pytest.mark.parametrize("where", ["pass", "plan", "interrupt in a drafter", "interrupt in a prompt"])
def test_what_fails_for_all_rows_closes_all(
    where: str, live: list[ToySession], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> Any:
        raise KeyboardInterrupt

    drafters = [Closable(), Closable(), Closable()]
    plan = Scripted(2)
    decoding = Decoding(toy(), plan)
    for prompt, drafter in zip(PROMPTS, drafters, strict=True):
        decoding.add(request(prompt, drafter=drafter))
    decoding.step()
    assert len(live) == 2
    if where == "pass":
        monkeypatch.setattr(ToyModel, "score_many", fault)
    elif where == "plan":
        monkeypatch.setattr(plan, "choose", fault)
    elif where == "interrupt in a drafter":
        monkeypatch.setattr(drafters[1], "propose", interrupt)
    else:
        plan.window = 3
        monkeypatch.setattr(ToySession, "score", interrupt)
    with pytest.raises(KeyboardInterrupt if "interrupt" in where else PlantedError):
        decoding.step()
    assert live == [] and decoding.done and decoding.step() == []
    assert [drafter.closed for drafter in drafters] == [1, 1, 1]
    with pytest.raises(UnspoolError, match="closed"):
        decoding.add(request(PROMPTS[0]))


def test_a_long_prompt_does_not_hold_up_a_row_that_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    score = ToySession.score
    monkeypatch.setattr(ToySession, "score", lambda self, t, rows=None: (sizes.append(len(t)), score(self, t, rows))[1])
    long = [1, 2, 3, 4] * 250
    decoding = Decoding(toy())
    decoding.add(request(PROMPTS[0], 40))
    events = decoding.step()
    decoding.add(request(long))
    rounds = 0
    while not any(isinstance(event, PrefillEvent) and event.row for event in events):
        sizes.clear()
        new = decoding.step()
        rounds += 1
        assert next(event.row for event in new if isinstance(event, StepEvent)) == 0
        assert sum(size > 1 for size in sizes) == 1 and max(sizes) <= PREFILL_BLOCK
        events += new
    assert rounds == -(-(len(long) - 1) // PREFILL_BLOCK)
    (prefill,) = [event for event in events if isinstance(event, PrefillEvent) and event.row]
    assert prefill.tokens == len(long) - 1
    assert texts(events + run(decoding), 2) == [alone(PROMPTS[0], 40), alone(long)]


def test_passes_are_numbered_without_the_rounds_that_only_read() -> None:
    events = list(decode(toy(), [request([1] * 300, 3)]))
    assert [event.batch_pass for event in events if isinstance(event, StepEvent)] == [0, 1, 2]
    assert [event.kind for event in events[:3]] == ["start", "prefill", "step"]


def test_threads_with_a_decoding_each_take_turns_on_a_model() -> None:
    prompts = [[[1, 2, 3], [4] * 150], [[5, 6] * 70, [7]]]

    def work(model: SharedModel, own: list[list[int]]) -> list[list[int]]:
        decoding = Decoding(model)
        decoding.add(request(own[0]))
        events = decoding.step()
        decoding.add(request(own[1]))
        return texts(events + run(decoding), 2)

    expected = [work(SharedModel(), own) for own in prompts]
    assert len({tuple(text) for texts in expected for text in texts}) > 1
    model = SharedModel()
    assert at_once([lambda own=own: work(model, own) for own in prompts]) == expected


def test_another_thread_may_add_and_cancel_in_the_middle_of_a_round(live: list[ToySession]) -> None:
    inside, go = threading.Event(), threading.Event()

    class Slow(Closable):
        def propose(self, *args: Any) -> TokenTree:
            inside.set()
            assert go.wait(60) and self.closed == 0
            return super().propose(*args)

    decoding = Decoding(toy())
    decoding.add(request(PROMPTS[0], drafter=Slow()))
    decoding.add(request(PROMPTS[1]))
    stepping = threading.Thread(target=lambda: events.extend(decoding.step()))
    events: list[Event] = []
    stepping.start()
    assert inside.wait(60)
    assert decoding.add(request(PROMPTS[2])) == 2  # does not wait for the round
    cancelling = threading.Thread(target=decoding.cancel, args=(0,))
    cancelling.start()
    time.sleep(0.02)
    assert cancelling.is_alive()
    go.set()
    stepping.join(60)
    cancelling.join(60)
    events += run(decoding)
    assert ends(events) == {0: "cancelled", 1: "length", 2: "length"}
    assert texts(events, 3)[1:] == [alone(PROMPTS[1]), alone(PROMPTS[2])]


def test_a_row_that_cancels_within_its_round_is_refused_and_ends(live: list[ToySession]) -> None:
    decoding = Decoding(toy())
    decoding.add(request(PROMPTS[0], stopping=lambda token: decoding.cancel(0)))
    events = run(decoding)
    (end,) = [event for event in events if isinstance(event, EndEvent)]
    assert end.reason == "error" and "middle of a pass" in str(end.error)


def test_memory_is_free_after_close_and_no_row_is_kept_after_its_end(live: list[ToySession]) -> None:
    drafters = [Closable() for _ in range(3)]
    seen = [weakref.ref(drafter) for drafter in drafters]
    decoding = Decoding(toy())
    for prompt, tokens in ((PROMPTS[0], 1), (PROMPTS[1], 9), ([1] * 300, 9)):
        decoding.add(request(prompt, tokens, drafter=drafters.pop()))
    with decoding:
        decoding.step()
        gc.collect()
        assert [ref() is None for ref in seen] == [False, False, True]
        assert len(live) == 2
    gc.collect()
    assert all(ref() is None for ref in seen) and decoding.done
