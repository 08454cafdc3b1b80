"""Enumeration sees every wrong rule; the two-sample test tells apart what differs and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from tests.conformance.faults import LastTokenFromTarget, MismatchedSampleDiscarded
from tests.proof.conftest import toy
from tests.proof.faults import KeepsRejectedDraws
from unspool.conformance.acceptance import enumerate_rule
from unspool.conformance.drafter import TOLERANCE
from unspool.conformance.passes import prefilled
from unspool.conformance.stubs import RandomDrafter
from unspool.engine.progress import silent
from unspool.methods.acceptance._exact_match import ExactMatch
from unspool.methods.acceptance.lossless import Lossless
from unspool.proof.distribution import Prefix, chi_squared, contingency, p_value, two_samples


def test_the_lossless_rule_is_exact_in_every_comparison() -> None:
    told: list[tuple[int, int]] = []
    worst, compared, wrong = enumerate_rule("lossless", Lossless(), lambda what, done, of: told.append((done, of)))
    assert worst < TOLERANCE and wrong == 0 and compared > 200
    assert told[0] == (0, compared) and told[-1] == (compared, compared)


@pytest.mark.parametrize("rule", [LastTokenFromTarget, MismatchedSampleDiscarded])
def test_wrong_rules_are_not(rule: type[Lossless]) -> None:
    worst, _, wrong = enumerate_rule("planted", rule(), silent)
    assert worst > 0.01 and wrong > 10


@pytest.mark.parametrize(
    ("statistic", "freedom", "expected"),
    [
        (3.5, 1, 0.0613688291394023),
        (20, 1, 7.744216431044088e-06),
        (9.2, 2, 0.010051835744633584),
        (21.7, 3, 7.531108164314014e-05),
        (20, 4, 0.0004993992273873336),
        (60, 31, 0.0013497859785251331),
        (400, 200, 1.8438936497115418e-15),
    ],
)
def test_p_values_are_those_of_tables(statistic: float, freedom: int, expected: float) -> None:
    assert p_value(statistic, freedom) == pytest.approx(expected, rel=1e-9)


def test_p_values_of_equal_samples_are_uniform() -> None:
    rng = np.random.default_rng(0)
    p = np.arange(1, 9) / 36
    values = [p_value(*chi_squared(rng.multinomial(500, p, size=2))) for _ in range(1000)]
    assert np.quantile(values, [0.1, 0.5, 0.9]) == pytest.approx([0.1, 0.5, 0.9], abs=0.05)
    assert p_value(*chi_squared(np.array([[5], [9]]))) == 1


def test_rare_outputs_are_counted_together() -> None:
    a = [(0, 0)] * 20 + [(1, i) for i in range(12)] + [(2, 0), (3, 0)]
    b = [(0, 0)] * 25 + [(1, 50)] * 9
    # Cells in order: what is rare at all, rare ones that begin with 1, and (0, 0).
    assert contingency(a, b).tolist() == [[2, 20, 12], [0, 25, 9]]


def sampled(rule: ExactMatch | Lossless) -> dict[str, float | int | str]:
    model = toy().language_model
    texts = [[0, 1, 2], [4, 4, 1, 3], [5]]
    drafters = iter(range(10_000))
    return two_samples(model, texts, lambda: RandomDrafter(6, next(drafters)), rule, 1.0, 0, "draws", silent)


@pytest.mark.parametrize("rule", [ExactMatch(), Lossless()])
def test_right_rules_draw_what_plain_sampling_draws(rule: ExactMatch | Lossless) -> None:
    figures = sampled(rule)
    # A p-value of 1 would be that of two samples drawn with the same seeds.
    assert 1e-3 < figures["p_value"] < 0.999
    assert figures["draws"] == figures["drafted"] == 600
    assert 0 < figures["accepted"] < 600


@pytest.mark.parametrize("rule", [ExactMatch(), Lossless()])
def test_draws_have_the_exact_distribution(rule: ExactMatch | Lossless) -> None:
    model, text = toy().language_model, [0, 1, 2]
    drafters = iter(range(10_000))
    with prefilled(model, text) as session:
        prefix = Prefix(model, session, text, 1.0)
        drawn = [prefix.draw(lambda: RandomDrafter(6, next(drafters)), rule, seed) for seed in range(800)]
    exact = model.distribution(2, text)  # type: ignore[attr-defined]
    chosen = np.random.default_rng(0).choice(len(exact), size=800, p=list(exact.values()))
    expected = [list(exact)[i] for i in chosen]
    assert p_value(*chi_squared(contingency(drawn, expected))) > 1e-3


def test_wrong_rules_draw_something_else() -> None:
    assert sampled(KeepsRejectedDraws())["p_value"] < 1e-9


def test_few_passes_serve_all_draws() -> None:
    model = toy().language_model
    passes = 0

    class Counted(type(model.open())):  # type: ignore[misc]
        def score(self, tree, rows=None):  # type: ignore[no-untyped-def]
            nonlocal passes
            passes += 1
            return super().score(tree, rows)

    model.session = Counted  # type: ignore[attr-defined]
    two_samples(model, [[0, 1, 2]], lambda: RandomDrafter(6), Lossless(), 1.0, 0, "draws", silent)
    assert passes < 500, "400 outputs of two tokens, of which a random drafter's first trees differ"
