"""The cost curve: interpolation, padding, and a measurement of a model whose costs are known."""

from __future__ import annotations

import numpy as np
import pytest

from unspool.backends.toy import ToyModel
from unspool.engine import cost
from unspool.engine.contracts import Context
from unspool.engine.cost import CostCurve, PassCosts
from unspool.engine.tree import TokenTree
from unspool.methods.drafters.auto import Auto


def test_points_between_measured_ones_are_interpolated_and_never_cheaper_than_wider_ones() -> None:
    curve = CostCurve((1, 3, 5), (0, 100), ((10.0, 8.0, 20.0), (20.0, 18.0, 40.0)))
    np.testing.assert_allclose(curve.row(0), [8, 8, 8, 14, 20])
    np.testing.assert_allclose(curve.row(100)[:3], [17.6, 17.6, 17.6])  # length 96: one in eight is computed
    np.testing.assert_allclose(curve.row(10_000), [18, 18, 18, 29, 40])


def test_a_padded_curve_has_steps() -> None:
    curve = CostCurve((1, 4, 8), (0,), ((10.0, 12.0, 20.0),), switch_ms=5.0, padded=True)
    np.testing.assert_allclose(curve.row(0), [10, 12, 12, 12, 20, 20, 20, 20])
    assert [curve.width(n) for n in (1, 2, 4, 5, 8)] == [1, 4, 4, 8, 8]


def test_measuring_covers_all_widths_and_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "LENGTHS", (8, 16, 4000))
    told: list[tuple[object, ...]] = []
    curve = cost.measure(
        ToyModel.random(vocab_size=5, max_length=96), seconds=0.05, progress=lambda *step: told.append(step)
    )
    assert curve.nodes == cost.NODES and curve.lengths == (8, 16, 32)
    assert all(len(row) == len(curve.nodes) and min(row) > 0 for row in curve.ms)
    assert told[-1] == ("cost curve", 100, 100) and len(told) > 1


@pytest.mark.parametrize("padded", [True, False])
def test_passes_that_are_made_correct_the_curve(padded: bool) -> None:
    """Where a calibration found one node too dear and eight too cheap, decoding learns how they really compare."""
    curve = CostCurve((1, 8, 16), (0,), ((17.0, 18.6, 30.0),), switch_ms=5.0, padded=padded)
    costs = PassCosts(curve)
    np.testing.assert_array_equal(costs.row(0), curve.row(0))
    for _ in range(40):
        costs.observe(1, 0, 15.3 + 5)  # after another width
        costs.observe(8, 0, 21.4 + 5)
        costs.observe(8, 0, 21.4)
    row = costs.row(0)
    assert row[0] == pytest.approx(15.3, rel=0.03) and row[7] == pytest.approx(21.4, rel=0.03)
    assert row[15] == pytest.approx(30.0 * (21.4 / 18.6 * 2 + 0.9) / 3, rel=0.03), "what was not seen: as all widths"
    assert (np.diff(row) >= 0).all()


def test_a_slower_machine_scales_all_widths_and_an_odd_pass_changes_little() -> None:
    curve = CostCurve((1, 8), (0,), ((10.0, 20.0),), padded=True)
    costs = PassCosts(curve)
    for _ in range(200):
        costs.observe(1, 0, 15.0)
    np.testing.assert_allclose(costs.row(0), 1.5 * curve.row(0), rtol=0.1)
    before = costs.row(0)[0]
    costs.observe(1, 0, 15_000.0)
    assert costs.row(0)[0] < 1.05 * before
    costs = PassCosts(curve)
    costs.observe(1, 0, 25.0)  # the first pass of its shape
    assert costs.row(0)[0] < 1.2 * curve.row(0)[0]
    costs.observe(100, 0, 1.0)  # wider than any that was measured: nothing to compare it with


class Separable:
    """Behind fewer than 100 tokens."""

    calls = 0

    def specialised(self, length: int) -> frozenset[int]:
        return frozenset({1, 8}) if self.calls and length < 100 else frozenset()

    def warm_up(self) -> None:
        raise AssertionError("costs do not depend on it")

    def specialise_widths(self) -> None:
        self.calls += 1


def test_widths_are_separated_once_their_changes_have_cost_enough() -> None:
    curve = CostCurve((1, 8, 16, 32), (0,), ((10.0, 20.0, 30.0, 40.0),), switch_ms=50.0, padded=True)
    model = Separable()
    told: list[str] = []
    costs = PassCosts(curve, model, told.append)  # type: ignore[arg-type]
    for i in range(200):
        costs.begin()
        if model.calls:
            break
        costs.observe((1, 8)[i % 2], 0, 70.0)
        costs.observe((1, 8)[i % 2], 0, 20.0)  # no change, no price
    assert i == 121, "120 changes cost 6 s"
    assert costs.change(1, 0) == costs.change(8, 99) == 0.0 and costs.change(16, 0) == 50.0
    assert costs.change(8, 100) == 50.0
    costs.observe(16, 0, 80.0)
    costs.observe(1, 0, 10.0)
    assert costs.change(16, 0) == 0.0, "what was prepared for 16 is still there"
    assert costs.change(32, 0) == 50.0
    for _ in range(100):
        costs.observe(16, 0, 80.0)
        costs.observe(32, 0, 90.0)
        costs.begin()
    assert model.calls == len(told) == 1


def test_a_model_that_cannot_separate_its_widths_goes_on_paying() -> None:
    costs = PassCosts(CostCurve((1, 8), (0,), ((10.0, 20.0),), switch_ms=50.0, padded=True))
    for i in range(100):
        costs.observe((1, 8)[i % 2], 0, 70.0)
        costs.begin()
    assert costs.change(1, 0) == 50.0


class Certain:
    """Drafts a chain that it is always right about, as far as the rates have learned."""

    def start(self, context: Context) -> None: ...

    def propose(self, context: Context, budget: int) -> TokenTree:
        return TokenTree.chain([context.tokens[-1], *[1] * (budget - 1)])

    def observe(self, step: object) -> None: ...


@pytest.mark.parametrize(
    ("curve", "size"),
    [
        # A second node costs as much as a whole pass: the bare token is sent.
        (CostCurve((1, 64), (0,), ((1.0, 64.0),)), 1),
        # Free up to eight, dear beyond: eight are bought.
        (CostCurve((1, 8, 9, 64), (0,), ((10.0, 10.0, 90.0, 90.0),)), 8),
    ],
)
def test_auto_buys_while_a_node_pays(curve: CostCurve, size: int) -> None:
    auto = Auto({"certain": Certain()}, PassCosts(curve))
    for depth in range(1, 30):
        for _ in range(50):
            auto._rates.update("certain", 0, depth, True)
    assert len(auto.propose(Context([1], 1, 0, 0.0), 64)) == size


def test_auto_charges_for_a_change_of_width() -> None:
    context = Context([1], 1, 0, 0.0)
    trees = {}
    for price in (0.0, 100.0):
        curve = CostCurve((1, 2), (0,), ((10.0, 12.0),), switch_ms=price, padded=True)
        auto = Auto({"certain": Certain()}, PassCosts(curve))
        auto._costs.observe(1, 0, 10.0)
        for _ in range(50):
            auto._rates.update("certain", 0, 1, True)
        trees[price] = len(auto.propose(context, 2))
    assert trees == {0.0: 2, 100.0: 1}
