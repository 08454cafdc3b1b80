"""Figures of a benchmark, computed by hand."""

from __future__ import annotations

import pytest

from tests.bench.fakes import bench, run
from unspool.bench.result import Bench, Run, Spread, Summary
from unspool.bench.summary import ratio_table, spread, summarise

# Plain: prompt 1 at 10 tokens/s, prompt 2 at 20 tokens/s (category b).
PLAIN = [
    run("plain", "1", 10, 1.0, passes=11, decode_seconds=1.0, scoring_seconds=0.9),
    run("plain", "2", 80, 4.0, category="b", passes=81, decode_seconds=4.0, scoring_seconds=3.8),
]
# Auto: prompt 1 three times as fast, prompt 2 at half the speed.
AUTO = [
    run("auto", "1", 9, 0.3, passes=5, decode_seconds=0.4, scoring_seconds=0.3, by_depth=[[4, 8], [1, 4]]),
    run("auto", "2", 80, 8.0, category="b", passes=76, decode_seconds=8.0, scoring_seconds=6.0, by_depth=[[5, 10]]),
]


def row(result: Bench, contestant: str, category: str = "all") -> Summary:
    (found,) = (s for s in summarise(result) if (s.contestant, s.category) == (contestant, category))
    return found


def test_mean_of_ratios_and_ratio_of_totals_differ() -> None:
    summary = row(bench(PLAIN + AUTO), "auto")
    assert summary.ratio_mean == pytest.approx((3 + 0.5) / 2)
    assert summary.ratio == Spread(pytest.approx(1.75), pytest.approx(1.125), pytest.approx(2.375))
    # (9 + 80) / 8.3 against 90 / 5.
    assert summary.ratio_totals == pytest.approx(89 / 8.3 / 18)
    assert summary.slower, "the totals decide, though the mean of the ratios is above 1"
    assert not row(bench(PLAIN + AUTO), "auto", "a").slower
    assert row(bench(PLAIN + AUTO), "plain").ratio_totals == pytest.approx(1) and not row(bench(PLAIN), "plain").slower


def test_medians_over_repeats_come_before_ratios() -> None:
    plain = [run("plain", "1", 10, seconds, repeat=n) for n, seconds in enumerate((1.0, 2.0, 10.0))]
    auto = [run("auto", "1", 10, seconds, repeat=n) for n, seconds in enumerate((5.0, 0.5, 1.0))]
    summary = row(bench(plain + auto), "auto")
    # Median speeds 10 and 5; the ratio of each repeat would have been 0.2, 4 and 10.
    assert summary.ratio_mean == pytest.approx(2) and summary.ratio == Spread(2, 2, 2)
    assert summary.ratio_totals == pytest.approx((30 / 6.5) / (30 / 13))
    assert summary.runs == 3 and summary.tokens_per_second == Spread(10, 6, 15)


def test_counts_are_sums() -> None:
    summary = row(bench(PLAIN + AUTO), "auto")
    assert summary.passes == 81
    assert summary.mean_accepted_tokens == pytest.approx((10 + 81) / 81), "all emitted tokens, bonus included"
    assert summary.overhead == pytest.approx(1 - 6.3 / 8.4)
    assert summary.by_depth == [[9, 18], [1, 4]]
    runs = [
        run("plain", p, 2, 1.0, by_source={"model": 1, "x": n}, quality=q) for p, n, q in (("1", 2, 1.0), ("2", 3, 0.0))
    ]
    summary = row(bench([*runs, run("plain", "3", 2, 1.0)]), "plain")
    assert summary.by_source == {"model": 2, "x": 5}
    assert summary.quality == 0.5, "runs without a checker do not count"


def test_what_peers_do_not_tell_is_none() -> None:
    summary = row(bench([*PLAIN, run("llama_cpp", "1", 5, 1.0)]), "llama_cpp")
    assert (summary.passes, summary.mean_accepted_tokens, summary.overhead, summary.quality) == (None,) * 4
    assert summary.ratio_mean == pytest.approx(0.5)


def test_a_single_emission_has_no_speed() -> None:
    result = bench([*PLAIN, run("auto", "1", 0, 0.0, token_ids=[4], passes=1), AUTO[1]])
    summary = row(result, "auto")
    assert summary.runs == 1 and summary.ratio_mean == pytest.approx(0.5)
    assert summary.passes == 77, "but it counts where no speed is asked"
    assert not [s for s in summarise(result) if (s.contestant, s.category) == ("auto", "a")]


def test_without_plain_there_is_no_ratio() -> None:
    summary = row(bench(AUTO), "auto")
    assert (summary.ratio, summary.ratio_mean, summary.ratio_totals, summary.slower) == (None, None, None, False)


def test_first_seconds_are_of_the_first_repeat() -> None:
    runs = [
        run("plain", str(n), 2, 1.0, repeat=r, first_seconds=s) for n, r, s in ((1, 0, 3.0), (2, 0, 5.0), (1, 1, 0.1))
    ]
    assert row(bench(runs), "plain").first_seconds == 4.0


def test_rows_come_in_order() -> None:
    made: list[Run] = [*AUTO, run("llama_cpp", "1", 5, 1.0), *PLAIN]
    order = [(s.contestant, s.category) for s in summarise(bench(made))]
    assert order == [
        *[("plain", c) for c in ("a", "b", "all")],
        *[("auto", c) for c in ("a", "b", "all")],
        *[("llama_cpp", c) for c in ("a", "all")],
    ]
    table = ratio_table(summarise(bench(made)))
    assert list(table) == ["auto", "llama_cpp"]
    assert table["auto"]["b"] == (pytest.approx(0.5), pytest.approx(0.5))


def test_spread() -> None:
    assert spread([5.0]) == Spread(5, 5, 5)
    assert spread([4, 1, 2, 3, 5]) == Spread(3, 2, 4)


def test_results_survive_json() -> None:
    result = bench(PLAIN + AUTO)
    assert Bench.from_json(result.to_json()) == result
