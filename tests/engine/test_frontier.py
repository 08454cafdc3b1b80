"""The frontier against full prefills of the toy model, whatever was read before, and what it counts."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unspool.backends.toy import ToyModel, ToySession
from unspool.engine.contracts import Scores
from unspool.engine.frontier import MAX_TREE_NODES, BudgetSpentError, Frontier, roll_out
from unspool.engine.search import Branch, Distribution, PassEvent, SearchRequest
from unspool.engine.taps import Taps
from unspool.engine.tree import TokenTree
from unspool.errors import UnspoolError

MODEL = ToyModel.random(seed=3, vocab_size=4, order=3)
PROMPT = [1, 0, 2]


class Padded(ToyModel):
    """Says that its passes are padded, so that branches are scored as trees."""

    widths = (1, 2, 4, 8, 16, 32)


PADDED = Padded(MODEL.table)
OUTPUTS = st.lists(st.lists(st.integers(0, 3), max_size=9).map(tuple), min_size=1, max_size=4)


@settings(deadline=None)
@given(
    st.lists(OUTPUTS, min_size=1, max_size=6),
    st.sampled_from([MODEL, PADDED]),
    st.integers(1, 3),
    st.integers(0, 4),
)
def test_any_reading_is_that_of_a_full_prefill(
    calls: list[list[tuple[int, ...]]], model: ToyModel, sessions: int, remembered: int
) -> None:
    with closing(Frontier(model, PROMPT, sessions=sessions, remembered=remembered)) as frontier:
        for outputs in calls:
            for output, found in zip(outputs, frontier.read(outputs), strict=True):
                np.testing.assert_array_equal(found.logits, np.log(MODEL.probabilities([*PROMPT, *output])))


@pytest.mark.parametrize("model", [MODEL, PADDED])
def test_what_is_counted(model: ToyModel) -> None:
    events: list[PassEvent] = []
    with closing(Frontier(model, PROMPT, sessions=2, remembered=1, on_event=events.append)) as frontier:
        frontier.read([()])  # the last token of the prompt
        assert (frontier.passes, frontier.evaluated_tokens) == (1, 1)
        frontier.read([()])
        assert (frontier.passes, frontier.evaluated_tokens, frontier.recalled) == (1, 1, 1)
        frontier.read([(0,), (1,)])
        # A tree scores the token that its branches hang on once more.
        assert (frontier.passes, frontier.evaluated_tokens) == (2, 3 + (model is PADDED))
    assert [(event.branches, event.nodes) for event in events] == [(1, 1), (2, 2 + (model is PADDED))]


def test_a_branch_is_entered_again_from_the_common_prefix() -> None:
    with closing(Frontier(MODEL, PROMPT)) as frontier:
        frontier.read([(0, 1, 2, 3)])
        before = frontier.evaluated_tokens
        frontier.read([(0, 1, 3)])
        assert frontier.evaluated_tokens == before + 1


def test_equal_branches_are_scored_once_and_large_trees_are_split() -> None:
    with closing(Frontier(PADDED, PROMPT)) as frontier:
        assert len(frontier.read([(1,), (1,)])) == 2
        assert frontier.evaluated_tokens == 2  # the prompt's last token and the one behind it
        far = [(token,) * MAX_TREE_NODES for token in range(3)]
        frontier.read(far)
        assert frontier.evaluated_tokens >= 2 + 3 * MAX_TREE_NODES - 1
        for output, found in zip(far, frontier.read(far), strict=True):
            np.testing.assert_array_equal(found.logits, np.log(MODEL.probabilities([*PROMPT, *output])))


class Narrow(ToyModel):
    """Sessions with room for a few levels, as where sums are grouped."""

    def open(self, taps: Taps | None = None) -> ToySession:
        return NarrowSession(self)


class NarrowSession(ToySession):
    @property
    def max_depth(self) -> int:
        return 3 - self.length % 3

    def score(self, tree: TokenTree, rows: object = None) -> Scores:
        assert int(tree.depths.max()) < self.max_depth
        return super().score(tree, rows)  # type: ignore[arg-type]


@pytest.mark.parametrize("widths", [(), (1, 16)])
def test_no_pass_is_deeper_than_the_room_of_its_session(
    widths: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Narrow, "widths", widths)
    with closing(Frontier(Narrow(MODEL.table), PROMPT)) as frontier:
        for outputs in [[(0,) * 8], [(0, 1, 0, 1, 0, 1, 1, 1), (0, 1, 1)], [(0, 0, 1), (0, 1, 0, 1, 1, 1)]]:
            for output, found in zip(outputs, frontier.read(outputs), strict=True):
                np.testing.assert_array_equal(found.logits, np.log(MODEL.probabilities([*PROMPT, *output])))


def test_what_a_tree_shares_is_kept() -> None:
    with closing(Frontier(PADDED, PROMPT)) as frontier:
        for outputs in [[(0, 1, 1, 3), (0, 1, 1, 0)], [(0, 1, 1, 3, 1), (0, 1, 1, 3, 2)]]:
            before = frontier.evaluated_tokens
            for output, found in zip(outputs, frontier.read(outputs), strict=True):
                np.testing.assert_array_equal(found.logits, np.log(MODEL.probabilities([*PROMPT, *output])))
        assert frontier.evaluated_tokens == before + 3  # the token that both hang on, and one each


def test_a_budget_is_never_exceeded() -> None:
    with closing(Frontier(MODEL, PROMPT, budget=5)) as frontier:
        frontier.read([(0, 1)])
        assert frontier.evaluated_tokens == 3
        with pytest.raises(BudgetSpentError):
            frontier.read([(1, 1, 1)])
        assert frontier.evaluated_tokens == 3
        frontier.read([(1, 1)])
        assert frontier.evaluated_tokens == 5


def test_distribution() -> None:
    p = np.array([0.1, 0.4, 0.0, 0.4, 0.1])
    with np.errstate(divide="ignore"):
        found = Distribution(np.log(p) + 3)
    assert found.best == 1
    assert found.logprob(0) == pytest.approx(np.log(0.1))
    assert [token for token, _ in found.top(9)] == [1, 3, 0, 4]
    assert found.entropy == pytest.approx(-2 * (0.4 * np.log(0.4) + 0.1 * np.log(0.1)))
    assert Distribution(np.array([0.0, -np.inf], dtype=np.float32)).entropy == 0


def test_logits_that_are_not_numbers_are_told() -> None:
    class Broken(ToyModel):
        def logits_of(self, context: tuple[int, ...]) -> np.ndarray:
            return super().logits_of(context) * np.nan

    with closing(Frontier(Broken(MODEL.table), PROMPT)) as frontier, pytest.raises(UnspoolError, match="NaN"):
        frontier.read([()])


def test_a_branch_that_ended_keeps_its_sum() -> None:
    with closing(Frontier(MODEL, PROMPT)) as frontier:
        ended, running = Branch((0,), -1.0), Branch((1,), -2.0)
        roll_out(frontier, [ended, running], 4, lambda output: output[0] == 0)
    assert (ended.output, ended.logprob) == ((0,), -1.0)
    text, total = [*PROMPT, 1], -2.0
    for _ in range(4):
        p = MODEL.probabilities(text)
        total += float(np.log(p.max()))
        text.append(int(p.argmax()))
    assert running.output == tuple(text[3:])
    assert running.logprob == pytest.approx(total)


def test_a_roll_out_stops_at_the_end_of_the_context() -> None:
    model = ToyModel(MODEL.table, max_length=6)
    with closing(Frontier(model, PROMPT)) as frontier:
        branch = Branch((1,))
        roll_out(frontier, [branch], 9, lambda output: False)
    assert len(branch.output) == 3


def test_why_an_output_is_over() -> None:
    request = SearchRequest(MODEL, PROMPT, 3, frozenset({2}), stopping=lambda output: output[:1] == (3,))
    assert request.finished((0, 2)) == "stop"
    assert request.finished((3,)) == "stopping_criteria"
    assert request.finished((0, 0, 2)) == "stop"
    assert request.finished((0, 0, 0)) == "length" and request.ended((0, 0, 0)) is None
    assert request.finished(()) is None


def test_all_sessions_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    opened, closed = [], []
    init, close = ToySession.__init__, ToySession.close
    monkeypatch.setattr(
        ToySession, "__init__", lambda self, model, taps=None: (opened.append(self), init(self, model))[1]
    )
    monkeypatch.setattr(ToySession, "close", lambda self: (closed.append(self), close(self))[1])
    with closing(Frontier(MODEL, PROMPT, sessions=2)) as frontier:
        frontier.read([(0,), (1,), (2,)])
        frontier.read([(3, 1), (2, 1), (0, 0, 1), (2, 2)])
        frontier.read([(1, 1)])
    assert {id(session) for session in opened} == {id(session) for session in closed}
