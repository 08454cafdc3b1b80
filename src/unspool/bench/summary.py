"""Computes the figures of a benchmark from its runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import mean, median, quantiles

from unspool.bench.result import Bench, Run, Spread, Summary
from unspool.methods import PLAIN

ALL = "all"
"""The category of all prompts together."""

METHOD = """\
Speed of a run = tokens after the first emission / time from the first emission to the last, by the caller's clock.
Prefill is not part of it, and a run with a single emission has no speed. All contestants get the same prompt ids and
stop at the end of the text. Each runs in its own process, which idles while another one decodes. Every prompt goes to
all of them, in a new random order, before the next prompt. What a method learns carries over from prompt to prompt and
is discarded at the start of a repeat. Time to the first token is from the first repeat, prefill included.
""".replace("\n", " ").strip()
"""How the figures were measured, for readers of the results."""


def summarise(bench: Bench) -> list[Summary]:
    """Figures by contestant (plain first, then in the given order) and category (sorted, then ``"all"``)."""
    return figures(bench.runs, list(bench.settings))


def figures(runs: Sequence[Run], order: Iterable[str] = ()) -> list[Summary]:
    """``summarise`` from runs only; contestants not in ``order`` come last.

    A contestant has no row in a category in which none of its runs has a speed.
    """
    names = list(dict.fromkeys([PLAIN, *order, *(run.contestant for run in runs)]))
    categories = [*sorted({run.category for run in runs}), ALL]
    made = []
    for name in names:
        for category in categories:
            chosen = [run for run in runs if category in (run.category, ALL)]
            own = [run for run in chosen if run.contestant == name]
            if any(_timed(own)):
                made.append(_figures(name, category, own, [run for run in chosen if run.contestant == PLAIN]))
    return made


def _figures(name: str, category: str, own: Sequence[Run], plain: Sequence[Run]) -> Summary:
    ratios = _ratios(own, plain)
    totals = total_speed(own) / total_speed(plain) if any(_timed(plain)) else None
    telling = [run for run in own if run.passes is not None]
    decoding = sum(run.decode_seconds or 0.0 for run in telling)
    scoring = sum(run.scoring_seconds or 0.0 for run in telling)
    approved = [run.quality for run in own if run.quality is not None]
    passes = sum(run.passes or 0 for run in telling)
    return Summary(
        contestant=name,
        category=category,
        runs=len(_timed(own)),
        tokens_per_second=spread([_speed(run) for run in _timed(own)]),
        ratio=spread(ratios) if ratios else None,
        ratio_mean=mean(ratios) if ratios else None,
        ratio_totals=totals,
        slower=totals is not None and totals < 1,
        mean_accepted_tokens=sum(len(run.token_ids) for run in telling) / passes if passes else None,
        passes=passes if telling else None,
        overhead=1 - scoring / decoding if decoding else None,
        # Engines may cache a prompt that they have seen, so later repeats say nothing about a new one.
        first_seconds=median(run.first_seconds for run in own if run.repeat == min(other.repeat for other in own)),
        by_depth=_depths(own),
        by_source=_sources(own),
        quality=mean(approved) if approved else None,
    )


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles of at least one value (interpolated, extremes included)."""
    low, middle, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return Spread(middle, low, high)


def _timed(runs: Iterable[Run]) -> list[Run]:
    return [run for run in runs if run.timed_tokens and run.seconds > 0]


def _speed(run: Run) -> float:
    return run.timed_tokens / run.seconds


def total_speed(runs: Iterable[Run]) -> float:
    """All timed tokens ÷ all seconds; at least one run must have a speed."""
    timed = _timed(runs)
    return sum(run.timed_tokens for run in timed) / sum(run.seconds for run in timed)


def _by_prompt(runs: Iterable[Run]) -> dict[str, float]:
    """Median speed over the repeats of each prompt."""
    speeds: dict[str, list[float]] = {}
    for run in _timed(runs):
        speeds.setdefault(run.prompt, []).append(_speed(run))
    return {prompt: median(values) for prompt, values in speeds.items()}


def _ratios(own: Iterable[Run], plain: Iterable[Run]) -> list[float]:
    base = _by_prompt(plain)
    return [speed / base[prompt] for prompt, speed in _by_prompt(own).items() if prompt in base]


def _depths(runs: Iterable[Run]) -> list[list[int]]:
    total: list[list[int]] = []
    for run in runs:
        total += [[0, 0] for _ in range(len(run.by_depth) - len(total))]
        for sums, (accepted, drafted) in zip(total, run.by_depth, strict=False):
            sums[0] += accepted
            sums[1] += drafted
    return total


def _sources(runs: Iterable[Run]) -> dict[str, int]:
    total: dict[str, int] = {}
    for run in runs:
        for source, tokens in run.by_source.items():
            total[source] = total.get(source, 0) + tokens
    return total


def ratio_table(summaries: Sequence[Summary]) -> dict[str, dict[str, tuple[float, float]]]:
    """By contestant (without plain) and category: mean of the per-prompt ratios to plain, and ratio of totals."""
    table: dict[str, dict[str, tuple[float, float]]] = {}
    for summary in summaries:
        if summary.contestant != PLAIN and summary.ratio_mean is not None and summary.ratio_totals is not None:
            table.setdefault(summary.contestant, {})[summary.category] = (summary.ratio_mean, summary.ratio_totals)
    return table
