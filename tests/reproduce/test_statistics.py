"""Intervals against values from the literature and from theory."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unspool.reproduce.statistics import difference, mcnemar, mean, ratio, ratio_of_ratios, share


def test_a_share_has_wilsons_interval() -> None:
    figure = share([True] * 8 + [False] * 2)
    assert (figure.value, figure.low, figure.high) == pytest.approx((0.8, 0.4902, 0.9433), abs=1e-4)
    assert share([False] * 40).high == pytest.approx(0.0876, abs=1e-4)
    assert share([False] * 40).count == 40


def test_mcnemar_is_the_exact_test_on_discordant_pairs() -> None:
    assert mcnemar([True] * 9, [False] * 9) == pytest.approx(2 / 2**9)
    assert mcnemar([True, False, True], [True, False, False]) == 1
    assert mcnemar([True], [True]) == 1


def test_the_interval_of_a_paired_difference_is_the_normal_one() -> None:
    ours, theirs = [1.0] * 30 + [0.0] * 10, [0.0] * 20 + [1.0] * 10 + [0.0] * 10
    figure = difference(ours, theirs)
    half = 1.96 * np.std(np.subtract(ours, theirs)) / math.sqrt(40)
    assert figure.value == 0.5
    assert (figure.low, figure.high) == pytest.approx((0.5 - half, 0.5 + half), abs=0.02)
    same = mean([1.0, 1.0])
    assert (same.value, same.low, same.high) == (1, 1, 1)


def test_ratios_are_of_sums_and_paired_by_case() -> None:
    figure = ratio([10, 30], [10, 10])
    assert figure.value == 2 and figure.low == 1 and figure.high == 3
    # Every case gains the same factor: the pairing leaves no doubt about it.
    figure = ratio_of_ratios([20, 60], [10, 10], [10, 30], [10, 10])
    assert figure.value == pytest.approx(2) and figure.low == pytest.approx(2) and figure.high == pytest.approx(2)


@pytest.mark.parametrize("figure", [share([]), mean([]), ratio([], []), ratio([1], [0])])
def test_without_cases_there_is_no_value(figure: object) -> None:
    assert math.isnan(figure.value) and figure.count in (0, None)  # type: ignore[attr-defined]
