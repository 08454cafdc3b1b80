"""``auto``: what it buys before it has learned anything, what it learns, and that it does not take turns."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from unspool.engine.contracts import Context
from unspool.engine.cost import CostCurve, PassCosts
from unspool.engine.tree import TokenTree
from unspool.methods.drafters import auto as module
from unspool.methods.drafters.auto import AcceptanceRates, Auto
from unspool.methods.drafters.suffix import Suffix

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
    rates = AcceptanceRates()
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


def test_a_tree_has_no_more_nodes_than_each_drafter_is_asked_for() -> None:
    """Though two drafters that differ propose more, and wider passes would pay."""

    class Certain:
        def __init__(self, first: int) -> None:
            self.first = first

        def start(self, context: Context) -> None:
            pass

        def propose(self, context: Context, budget: int) -> TokenTree:
            tokens = (context.tokens[-1], *range(self.first, self.first + budget - 1))
            return TokenTree(tokens, tuple(range(-1, budget - 1)), buckets=(15,) * budget)

    curve = CostCurve((1, 32, 64), (32,), ((30.0, 30.1, 30.2),), padded=True)
    auto = Auto({"suffix": Certain(100), "other": Certain(300)}, PassCosts(curve))  # type: ignore[dict-item]
    context = Context([7], 1, seed=0, temperature=0.0)
    auto.start(context)
    assert len(auto.propose(context, 128)) == 32


@pytest.mark.parametrize(("loyalty", "most"), [(1.05, 2), (1.0, 40)])
def test_widths_that_are_nearly_equal_do_not_take_turns(
    monkeypatch: pytest.MonkeyPatch, loyalty: float, most: int
) -> None:
    monkeypatch.setattr(module, "_LOYALTY", loyalty)
    auto = Auto({}, PassCosts(CostCurve((1, 2), (32,), ((30.0, 39.0),), switch_ms=5.0, padded=True)))
    cost = np.array([30.0, 39.0])
    sizes = []
    for i in range(60):
        sizes.append(auto._size([1.0, 1.26 if i % 2 else 1.50], cost, 32))
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
            auto._size(expected, curve.row(32), 32)
            asked.append(auto._width)
        return asked

    assert widths(switch_ms=5.0) == [8, 8]
    assert widths(switch_ms=0.0) == [1, 4]
    assert widths(switch_ms=0.0, padded=False) == [1, 3]


def test_looking_no_further_than_can_pay_buys_the_same_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    context = Context([1, 2, 3], 3, seed=0, temperature=0.0)
    is_enough = Auto._is_enough
    for _ in range(200):
        parents = (-1, *(int(rng.integers(i)) for i in range(1, 40)))
        buckets = tuple(int(bucket) for bucket in rng.integers(5, size=40))
        draft = TokenTree((3, *range(1, 40)), parents, source_names=("root", "a"), buckets=buckets)
        curve = CostCurve(
            (1, 4, 8, 16, 32, 64),
            (32,),
            (tuple(np.sort(rng.uniform(10, 60, 6))),),
            switch_ms=float(rng.uniform(0, 8)),
            padded=bool(rng.integers(2)),
        )
        rates = AcceptanceRates()
        rates._counts = {("a", bucket, 0): (20 * float(rng.beta(2, 2)), 20.0) for bucket in range(5)}
        width, found = int(rng.integers(1, 65)), []
        for method in (is_enough, lambda *arguments: False):
            monkeypatch.setattr(Auto, "_is_enough", method)
            drafter = SimpleNamespace(propose=lambda context, budget, draft=draft: draft)
            auto = Auto({"a": drafter}, PassCosts(curve), rates)  # type: ignore[dict-item]
            auto._costs.observe(width, 32, 20.0)
            found.append(auto.propose(context, 64).tokens)
        assert found[0] == found[1]


def test_it_looks_no_further_than_can_pay() -> None:
    curve = CostCurve((1, 2, 4, 8), (32,), ((10.0, 11.0, 20.0, 40.0),))
    auto = Auto({}, PassCosts(curve))
    cost = curve.row(32)
    assert not auto._is_enough([1.0], 0.5, cost, 32), "1.5 tokens in 11 ms"
    assert auto._is_enough([1.0, 1.5], 0.3, cost, 32), "not 2.1 in 20 ms"
    assert not auto._is_enough([1.0, 1.5], 0.9, cost, 32), "3.3 in 20 ms"
    assert not auto._is_enough([1.0, 1.5, 1.6], 0.1, cost, 32), "the width is not filled yet"
