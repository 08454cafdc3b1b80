"""The noise of a position: reproducible, of the right distribution, and unrelated between positions and seeds."""

from __future__ import annotations

import numpy as np
import pytest

from unspool.engine import noise, numeric

EULER = 0.5772156649015329


def test_same_seed_and_position_same_noise():
    for seed in (0, 7, -1, 2**64 + 7):
        assert np.array_equal(noise.exponential(seed, 3, 100), noise.exponential(seed, 3, 100))
    assert np.array_equal(noise.gumbel(7, 3, 50), noise.gumbel(7, 3, 100)[:50])


def test_stream_is_pinned():
    # A changed stream would change every sampled text; numpy promises the raw bits of Philox.
    np.testing.assert_allclose(
        noise.exponential(42, 5, 3), [1.2044932849242025, 0.6190214587410949, 1.628186971875091], rtol=1e-15
    )


def test_moments():
    n = 200_000
    e, g = noise.exponential(1, 2, n), noise.gumbel(1, 2, n)
    assert e.min() > 0
    assert np.isfinite(g).all()
    assert abs(e.mean() - 1) < 5 / n**0.5
    assert abs(e.var() - 1) < 5 * 8**0.5 / n**0.5
    assert abs(g.mean() - EULER) < 5 * (np.pi**2 / 6 / n) ** 0.5
    assert abs(g.var() - np.pi**2 / 6) < 0.03


@pytest.mark.parametrize("other", [(1, 3), (2, 2), (3, 1), (1, 2 + 2**32)])
def test_positions_and_seeds_are_unrelated(other):
    n = 100_000
    a, b = noise.exponential(1, 2, n), noise.exponential(*other, n)
    assert abs(np.corrcoef(a, b)[0, 1]) < 5 / n**0.5
    assert not np.intersect1d(a, b).size


def chi_squared(counts, p):
    expected = counts.sum() * p
    return float(((counts - expected) ** 2 / expected).sum())


def test_draw_follows_the_softmax():
    logits = np.array([0.0, 1.0, -1.0, 2.0, 0.5, -2.0])
    ids = np.arange(6)
    draws = [noise.draw(logits, 11, position, 6, ids) for position in range(20_000)]
    assert chi_squared(np.bincount(draws, minlength=6), numeric.softmax(logits)) < 20.5  # 99.9 % of 5 degrees


def test_draw_among_survivors_uses_their_own_noise():
    logits = np.array([0.0, 1.0, -1.0, 2.0, 0.5, -2.0])
    ids = np.array([1, 2, 5])
    cut = np.full(6, -np.inf)
    cut[ids] = logits[ids]
    draws = [noise.draw(logits[ids], 11, position, 6, ids) for position in range(5_000)]
    assert draws == [noise.draw(cut, 11, position, 6, np.arange(6)) for position in range(5_000)]
    assert chi_squared(np.bincount(draws, minlength=6)[ids], numeric.softmax(logits[ids])) < 13.9  # 99.9 % of 2


def test_successive_draws_are_independent():
    logits = np.array([0.0, 0.7, -0.4])
    p = numeric.softmax(logits)
    draws = np.array([noise.draw(logits, 5, position, 3, np.arange(3)) for position in range(20_000)])
    pairs = np.bincount(draws[:-1] * 3 + draws[1:], minlength=9)
    assert chi_squared(pairs, np.outer(p, p).ravel()) < 26.2  # 99.9 % of 8 degrees


def test_rule_generator_is_apart_from_the_noise():
    first = noise.rule_generator(3, 9).random(1000)
    assert np.array_equal(first, noise.rule_generator(3, 9).random(1000))
    assert not np.array_equal(first, noise.rule_generator(3, 10).random(1000))
    assert not np.intersect1d(noise.rule_generator(3, 9).bit_generator.random_raw(1000), noise._bits(3, 9, 1000)).size


def test_noise_of_some_tokens_is_that_of_all() -> None:
    for seed, ids in ((0, [5]), (3, [999, 0, 7, 8, 3]), (-1, list(range(40)))):
        np.testing.assert_array_equal(noise.gumbel_of(seed, 17, ids), noise.gumbel(seed, 17, 1000)[ids])
