"""``auto``: what it buys before it has learned anything, what it learns, and that it does not take turns."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from unspool.drafters import auto as module
from unspool.drafters.auto import AcceptanceRates, Auto, AutoOptions
from unspool.drafters.suffix import Suffix
from unspool.engine.contracts import Context
from unspool.engine.cost import CostCurve, PassCosts

CURVE = CostCurve((1, 2, 4, 8, 16), (32,), ((30.0, 40.0, 48.0, 60.0, 75.0),), padded=True)
TEXT = [7, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18]


def proposed(text: list[int]) -> int:
    context = Context(text, len(text), seed=0, temperature=0.0)
    auto = Auto({"suffix": Suffix()}, PassCosts(CURVE))
    auto.start(context)
    return len(auto.propose(context, 64))


def test_a_long_match_is_drafted_before_anything_was_learned() -> None:
    assert proposed([*TEXT, *TEXT[:15]]) == 16
    assert proposed([*TEXT, 99, 7]) == 1, "a match of one token is right too seldom to pay"


def test_rates_start_at_the_prior_and_follow_what_is_seen() -> None:
    rates = AcceptanceRates(AutoOptions(prior_weight=8.0))
    assert rates.rate("suffix", 15, 1) == pytest.approx(0.95)
    assert (
        rates.rate("token_recycling", 0, 1) > rates.rate("token_recycling", 1, 1) > rates.rate("token_recycling", 9, 1)
    )
    for _ in range(200):
        rates.update("suffix", 15, 1, hit=False)
    assert rates.rate("suffix", 15, 1) < 0.03
    assert rates.rate("suffix", 14, 1) > 0.9, "another bucket has its own rate"


def test_what_it_learns_from_drafts_that_it_did_not_buy() -> None:
    """A source that is never right at first is tried again as soon as the text shows that it is."""
    text = [*TEXT, 99, 7]
    context = Context(text, len(text), seed=0, temperature=0.0)
    auto = Auto({"suffix": Suffix()}, PassCosts(CURVE))
    auto.start(context)
    for token in (1, 2, 3, 4, 5):
        tree = auto.propose(context, 64)
        if len(tree) > 1:
            break
        text.append(token)
        auto.observe(SimpleNamespace(emitted=(token,), tree=tree, context=context, ms=30.0))  # type: ignore[arg-type]
    assert len(tree) > 1 and len(text) < len(TEXT) + 2 + 5


@pytest.mark.parametrize(("loyalty", "most"), [(1.05, 2), (1.0, 40)])
def test_widths_that_are_nearly_equal_do_not_take_turns(
    monkeypatch: pytest.MonkeyPatch, loyalty: float, most: int
) -> None:
    monkeypatch.setattr(module, "_LOYALTY", loyalty)
    auto = Auto({}, PassCosts(CostCurve((1, 2), (32,), ((30.0, 39.0),), switch_ms=5.0, padded=True)))
    cost = np.array([30.0, 39.0])
    sizes = []
    for i in range(60):
        sizes.append(auto._size([1.0, 1.26 if i % 2 else 1.50], cost))
        auto._costs.observe(sizes[-1], 32, float(cost[sizes[-1] - 1]))
    changes = sum(a != b for a, b in itertools.pairwise(sizes))
    assert changes <= most
    if loyalty == 1.0:
        assert changes > 20, "without loyalty they do, so that this test tests something"


def test_a_small_tree_is_padded_where_another_width_costs_more() -> None:
    def widths(switch_ms: float, padded: bool = True) -> list[int]:
        curve = CostCurve((1, 4, 8), (32,), ((1.0, 1.1, 1.2),), switch_ms, padded)
        auto = Auto({}, PassCosts(curve))
        auto._costs.observe(8, 32, 1.2)
        auto._width, asked = 8, []
        for expected in ([1.0], [1.0, 1.5, 1.6]):
            auto._size(expected, curve.row(32))
            asked.append(auto._width)
        return asked

    assert widths(switch_ms=5.0) == [8, 8]
    assert widths(switch_ms=0.0) == [1, 4]
    assert widths(switch_ms=0.0, padded=False) == [1, 3]
