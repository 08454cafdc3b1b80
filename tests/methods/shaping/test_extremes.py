"""Options at the edges of what numbers can say: a finite best token stays, nothing becomes NaN, T -> 0 is greedy."""

from __future__ import annotations

import math
import warnings
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.pairwise import pairwise
from unspool.engine.noise import rule_generator
from unspool.engine.options import GenerationOptions
from unspool.engine.target import ShapedTarget
from unspool.engine.tree import TokenTree
from unspool.errors import UnspoolError
from unspool.methods.acceptance.lossless import Lossless
from unspool.methods.shaping._built_in import build

CONTEXT = [3, 1, 4]
SMALL = [1e-18, 1e-30, 1e-37, 1e-38, 1e-39, 1e-45, 1e-46, 1e-300, 5e-324]
CUTS: list[dict[str, Any]] = [{}, {"top_p": 0.9}, {"typical_p": 0.9}, {"min_p": 0.1}, {"top_k": 3}, {"min_p": 1.0}]
ROW = [2.0, -1.0, 18.5, 17.9, 4.0]


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def target(row: np.ndarray, **options: Any) -> ShapedTarget:
    made = GenerationOptions(**options)
    return ShapedTarget(TokenTree.chain([CONTEXT[-1]]), row[None], CONTEXT, build(made), made)


def check(one: ShapedTarget, size: int) -> int:
    token = one.choose(0)
    assert math.isfinite(one.logprob(0, token)) and one.margin(0, token) >= 0
    row = one._row(0)
    assert np.isfinite(row.max()) and not np.isnan(row).any()
    assert not any(math.isnan(one.logprob(0, other)) for other in range(size))
    p = one.probabilities(0)
    assert p[token] > 0 and p.sum() == pytest.approx(1)
    return token


@pytest.mark.parametrize(
    ("temperature", "cut", "shift", "dtype"), pairwise(SMALL, CUTS, [0, -40, 1e6], [np.float32, np.float64])
)
def test_a_temperature_next_to_zero_is_greedy_decoding(
    temperature: float, cut: dict[str, Any], shift: float, dtype: type
) -> None:
    row = np.array(ROW, dtype) + dtype(shift)
    for seed in range(5):
        one = target(row, temperature=temperature, seed=seed, **cut)
        assert check(one, 5) == 2
        assert one.logprob(0, 2) == pytest.approx(0)
        decision = Lossless().decide(one, lambda seed=seed: rule_generator(seed, 1))
        assert decision.token == 2


@pytest.mark.parametrize("temperature", [1e30, 1e38, 1e39, 1e300])
def test_a_huge_temperature_is_uniform_over_what_may_follow(temperature: float) -> None:
    one = target(np.array(ROW, np.float32), temperature=temperature, bad_words_ids=[[2]])
    check(one, 5)
    np.testing.assert_allclose(one.probabilities(0), [0.25, 0.25, 0, 0.25, 0.25])


@pytest.mark.parametrize("temperature", [0.0, 1e-39, 1.0])
@pytest.mark.parametrize(
    ("options", "token"),
    [
        ({"repetition_penalty": 1e-38}, 4),
        ({"repetition_penalty": 1e-200}, 4),
        ({"repetition_penalty": 1e200}, 0),
        ({"sequence_bias": {(0,): math.inf}}, 0),
        ({"sequence_bias": {(0,): math.inf, (2,): math.inf}}, 2),  # the logits decide between them
        ({"sequence_bias": {(0,): math.inf, (2,): -math.inf}}, 0),
        ({"sequence_bias": {(0,): math.inf, (4, 0): -math.inf}}, 5),  # forbidden stays forbidden
        ({"sequence_bias": {(0,): 1e39, (1,): 1e40}}, 1),
        ({"sequence_bias": {(0,): 1e100, (1,): -1e100}}, 0),
        ({"sequence_bias": {(i,): -1e39 * (i + 1) for i in range(6)}}, 0),
        ({"sequence_bias": {(0,): math.inf}, "bad_words_ids": [[2]]}, 0),
    ],
)
def test_extreme_penalties_and_biases_leave_a_finite_best_token(
    options: dict[str, Any], token: int, temperature: float
) -> None:
    row = np.array([2.0, -1.0, 18.5, 17.9, 18.0, 19.0], np.float32)
    if "repetition_penalty" in options and options["repetition_penalty"] > 1:
        row = np.array([3.0, -1.0, 2.5, -2.0, -3.0, 2.0], np.float32)
    one = target(row, temperature=temperature, top_p=0.5, seed=1, **options)
    assert check(one, 6) == token
    certain = token != 5 and not (options.get("repetition_penalty", 1) != 1 and temperature != 1e-39)
    assert one.logprob(0, token) == pytest.approx(0, abs=1e-6 if certain else 1.5)


def test_biases_that_meet_with_opposite_infinities_leave_nothing() -> None:
    with pytest.raises(UnspoolError, match="no token may follow"):
        bias = {(i,): -math.inf for i in range(5)} | {(4, 1): math.inf}
        target(np.zeros(5, np.float32), sequence_bias=bias).choose(0)


LOGITS = st.floats(-200, 200, width=32)
POSITIVE = st.floats(math.log(5e-324), math.log(1e300)).map(math.exp).filter(lambda t: t > 0)
SHAPES = st.fixed_dictionaries(
    {},
    optional={
        "temperature": POSITIVE,
        "top_k": st.integers(1, 12),
        "top_p": st.floats(1e-12, 1),
        "typical_p": st.floats(1e-12, 1),
        "min_p": st.floats(0, 1),
        "repetition_penalty": st.floats(-460, 460).map(math.exp),
        "sequence_bias": st.dictionaries(
            st.sampled_from([(0,), (1,), (2,), (4, 3), (1, 4, 0)]),
            st.floats(-1e100, 1e100) | st.sampled_from([-math.inf, math.inf]),
            max_size=3,
        ),
        "bad_words_ids": st.sampled_from([[[0]], [[4, 1]], [[2], [3]]]),
        "no_repeat_ngram_size": st.sampled_from([1, 2]),
    },
)


@settings(max_examples=400, deadline=None)
@given(st.lists(LOGITS, min_size=5, max_size=9), SHAPES, st.integers(0, 9), st.booleans())
def test_all_shapers_together_leave_a_finite_best_token(
    row: list[float], options: dict[str, Any], seed: int, single: bool
) -> None:
    logits = np.array(row, np.float32 if single else np.float64)
    one = target(logits, seed=seed, **options)
    try:
        token = one.choose(0)
    except UnspoolError as error:
        assert "no token may follow" in str(error) and options.keys() & {
            "bad_words_ids",
            "no_repeat_ngram_size",
            "sequence_bias",
        }
        return
    assert check(one, len(row)) == token


def exact(row: list[float], options: dict[str, Any]) -> list[Fraction | None]:
    """The logits in exact arithmetic, before the warpers; None is minus infinity."""
    values: list[Fraction | None] = [Fraction(value) for value in row]
    bias: dict[int, list[float]] = {}
    for sequence, value in options.get("sequence_bias", {}).items():
        if CONTEXT[len(CONTEXT) - len(sequence) + 1 :] == list(sequence[:-1]):
            bias.setdefault(sequence[-1], []).append(value)
    for token, sums in bias.items():
        values[token] = None if -math.inf in sums else values[token] + sum(map(Fraction, sums))
    penalty = Fraction(options.get("repetition_penalty", 1.0))
    for token in set(CONTEXT):
        value = values[token] if token < len(values) else None
        if value is not None:
            values[token] = value * penalty if value < 0 else value / penalty
    return values


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.integers(-90, 90).map(lambda n: n / 2), min_size=5, max_size=9, unique=True),
    st.floats(-460, 460).map(math.exp),
    st.dictionaries(
        st.sampled_from([(0,), (1,), (2,), (4, 3), (1, 4, 0)]),
        st.sampled_from([-math.inf, -1e100, -1e39, -7.0, 3.0, 1e39, 1e100]),
        max_size=3,
    ),
    st.sampled_from(SMALL),
)
def test_as_the_temperature_goes_to_zero_the_token_is_that_of_exact_arithmetic(
    row: list[float], penalty: float, bias: dict[tuple[int, ...], float], temperature: float
) -> None:
    options = {"repetition_penalty": penalty, "sequence_bias": bias}
    known = exact(row, options)
    best = max(value for value in known if value is not None)
    # What is nearer to the best than float64 can tell is as good.
    close = {
        i for i, v in enumerate(known) if v is not None and best - v <= max(abs(best), Fraction(1, 10**45)) / 10**6
    }
    for shape in ({"temperature": 0.0}, {"temperature": temperature}, {"temperature": temperature, "top_p": 0.9}):
        assert check(target(np.array(row, np.float32), **options, **shape), len(row)) in close
