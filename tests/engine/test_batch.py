"""What the loop does with a batch plan: windows, refilling, order, refusals. The plans have tests of their own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from tests.methods.batching.reading import passes, texts
from unspool.backends.toy import ToyModel, ToySession
from unspool.conformance.stubs import RandomDrafter
from unspool.engine.autoregressive import Request, decode
from unspool.engine.batch import AllRows, OpenRow
from unspool.engine.contracts import Drafter
from unspool.engine.options import GenerationOptions
from unspool.engine.statistics import grouping_rate
from unspool.engine.taps import Taps
from unspool.engine.trace import StartEvent, StepEvent
from unspool.methods.acceptance._exact_match import ExactMatch
from unspool.methods.drafters.plain import Plain

EOS = 3
PROMPTS = [[0, 1, 2, 0, 1], [5], [2, 4, 2, 4, 2, 4, 2], [1, 1], [4], [0, 3, 0], [2, 2, 2, 5]]


class Scripted:
    """A plan whose choices are made by a function; keeps what it was shown."""

    def __init__(self, choose: object, window: int | None = None, shortest_first: bool = False) -> None:
        self.window = window
        self.shortest_first = shortest_first
        self.shown: list[tuple[OpenRow, ...]] = []
        self._choose = choose

    def choose(self, rows: Sequence[OpenRow]) -> Sequence[int]:
        self.shown.append(tuple(rows))
        return self._choose(rows)  # type: ignore[operator, no-any-return]


def toy() -> ToyModel:
    return ToyModel.random(vocab_size=6, order=2, seed=11, eos_token_id=EOS)


def requests(prompts: Sequence[list[int]] = PROMPTS, tokens: int = 12, drafter: type[Drafter] = Plain) -> list[Request]:
    options = GenerationOptions(max_new_tokens=tokens, temperature=0.9, seed=7)
    return [Request(prompt, drafter(), ExactMatch(), options, eos=frozenset({EOS})) for prompt in prompts]


def alone(prompts: Sequence[list[int]] = PROMPTS, tokens: int = 12) -> list[list[int]]:
    return [texts(decode(toy(), [request]), 1)[0] for request in requests(prompts, tokens)]


class Drafts(RandomDrafter):
    def __init__(self) -> None:
        super().__init__(6, seed=5)


@pytest.mark.parametrize("window", [None, 1, 2, 4, 9])
@pytest.mark.parametrize("drafter", [Plain, Drafts])
def test_a_row_is_the_row_alone_whatever_the_plan_picks(drafter: type[Drafter], window: int | None) -> None:
    rng = np.random.default_rng(1)

    def some(rows: Sequence[OpenRow]) -> list[int]:
        size = int(rng.integers(1, len(rows) + 1))
        return [rows[i].index for i in rng.permutation(len(rows))[:size]]

    expected = alone()
    assert len({len(text) for text in expected}) > 3, "the rows should end at different steps"
    events = list(decode(toy(), requests(drafter=drafter), Scripted(some, window)))
    assert texts(events, len(PROMPTS)) == expected


def test_the_default_is_every_row_in_every_pass() -> None:
    events = list(decode(toy(), requests()))
    assert events[0].row == 0 and passes(events)[0] == list(range(len(PROMPTS)))
    lengths = [len(text) for text in texts(events, len(PROMPTS))]
    assert passes(events) == [[row for row, n in enumerate(lengths) if n > i] for i in range(max(lengths))]


def test_at_most_a_window_of_sessions_is_open_and_the_next_one_opens_when_a_row_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = most = 0
    open_, close = ToyModel.open, ToySession.close

    def opened(self: ToyModel, taps: Taps | None = None) -> ToySession:
        nonlocal now, most
        now, most = now + 1, max(most, now + 1)
        return open_(self)

    def closed(self: ToySession) -> None:
        nonlocal now
        now -= 1
        close(self)

    monkeypatch.setattr(ToyModel, "open", opened)
    monkeypatch.setattr(ToySession, "close", closed)
    plan = Scripted(lambda rows: [row.index for row in rows], window=3)
    events = list(decode(toy(), requests(), plan))
    assert (most, now) == (3, 0)
    assert [event.row for event in events if isinstance(event, StartEvent)] == list(range(len(PROMPTS)))
    # A free place is filled before the next pass: passes are full until nobody waits.
    full = [len(rows) for rows in passes(events)]
    last = next(i for i, rows in enumerate(passes(events)) if len(PROMPTS) - 1 in rows)
    assert full[: last + 1] == [3] * (last + 1)
    assert sorted(full, reverse=True) == full


def test_what_a_plan_is_shown() -> None:
    plan = Scripted(lambda rows: [rows[len(plan.shown) % len(rows)].index], window=2)
    events = list(decode(toy(), requests(PROMPTS[:3], tokens=3), plan))
    steps = [event for event in events if isinstance(event, StepEvent)]
    assert plan.shown[0] == (OpenRow(0, 5, 0), OpenRow(1, 1, 0))
    last_pass: dict[int, int] = {}
    for number, (shown, step) in enumerate(zip(plan.shown, steps, strict=True)):
        for row in shown:
            before = [s for s in steps[:number] if s.row == row.index]
            assert row.length == len(PROMPTS[row.index]) + sum(len(s.emitted) for s in before)
            if before:
                assert row.waited == number - 1 - last_pass[row.index]
        assert step.position == next(row.length for row in shown if row.index == step.row)
        last_pass[step.row] = number
    assert max(row.waited for shown in plan.shown for row in shown) > 0


def test_shortest_first_opens_by_length_and_keeps_the_order_of_equals() -> None:
    plan = Scripted(lambda rows: [row.index for row in rows], window=2, shortest_first=True)
    events = list(decode(toy(), requests(), plan))
    assert [event.row for event in events if isinstance(event, StartEvent)] == [1, 4, 3, 5, 6, 0, 2]
    assert texts(events, len(PROMPTS)) == alone()


@pytest.mark.parametrize("choice", [[], [0, 0], [0, 6], [-1]])
def test_a_plan_that_breaks_the_contract_is_told(choice: list[int]) -> None:
    with pytest.raises(ValueError, match="batch plan"):
        list(decode(toy(), requests(), Scripted(lambda rows: choice, window=3)))


def test_rows_that_wait_are_closed_when_the_caller_stops_early(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[ToySession] = []
    original = ToySession.close
    monkeypatch.setattr(ToySession, "close", lambda self: (closed.append(self), original(self)))
    events = decode(toy(), requests(tokens=1), Scripted(lambda rows: [rows[0].index], window=3))
    for event in events:
        if isinstance(event, StepEvent):  # the row has ended, and its end has not been told
            break
    events.close()  # type: ignore[attr-defined]
    assert len(closed) == len(set(map(id, closed))) == 3


def test_no_requests_give_no_events() -> None:
    assert list(decode(toy(), [], AllRows())) == []


def test_grouping_rate_counts_passes_of_several_rows() -> None:
    options = GenerationOptions(max_new_tokens=4)
    made = [Request(prompt, Plain(), ExactMatch(), options) for prompt in ([0, 1], [2, 4], [1])]
    model = ToyModel.random(vocab_size=6)
    assert grouping_rate(decode(model, made[:2])) == 1
    assert grouping_rate(decode(model, made)) == 0
    assert grouping_rate(decode(model, made[:1])) is None
    # Rows 0 and 2 first, then row 1, which nobody is left to share a pass with.
    plan = Scripted(lambda rows: [row.index for row in rows if row.index != 1] or [1])
    events = list(decode(model, made, plan))
    assert grouping_rate(events) == 0 and len(passes(events)) == 8
    # Row 2 alone until it is as long as the others: seven passes, of which four hold several rows, all of one length.
    plan = Scripted(lambda rows: [2] if len(plan.shown) == 1 else [row.index for row in rows])
    assert grouping_rate(decode(model, made, plan)) == 1
