"""A benchmark's result as tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from unspool.bench.result import Bench, Summary
from unspool.bench.summary import ALL, METHOD, ratio_table, summarise
from unspool.storage.cache import format_bytes

_NONE = "-"


_CATEGORIES = (
    "By category. tokens/s: median (quartiles) over runs; tokens/pass: mean accepted tokens, bonus included; first: "
    "seconds to the first token; outside: share of the decoding time outside the model; right: approved by the checker."
)
_RATIOS = "Speed ÷ plain's: mean of the per-prompt ratios / ratio of totals (all tokens ÷ all seconds)."
_CONTESTANTS = "All prompts. Compared with plain token by token: identical runs, ties (explained by rounding), faults."


def show(bench: Bench, console: Console) -> None:
    """Print all figures: by category, as ratios to plain, and per contestant."""
    summaries = summarise(bench)
    host = bench.about["machine"]
    load = host["load_average_1min"]
    console.print(f"{bench.model}, {bench.suite}; {host['cpu']}, {host['physical_cores']} cores, load {load}")
    console.print(METHOD, style="dim", highlight=False)
    for title, table in (
        (_CATEGORIES, _categories(summaries)),
        (_RATIOS, _ratios(summaries)),
        (_CONTESTANTS, _contestants(bench, summaries)),
    ):
        console.print(f"\n{title}", style="italic", highlight=False)
        console.print(table)
    for name, reason in bench.left_out.items():
        console.print(f"{name} is left out: {reason}", markup=False)
    for row in summaries:
        if row.category == ALL and row.slower:
            console.print(f"{row.contestant} is slower than plain decoding: {row.ratio_totals:.2f} times its speed")


def _categories(summaries: Sequence[Summary]) -> Table:
    table = _table(
        ("contestant",),
        ("tokens/s", "tokens/pass", "passes", "first", "outside", "right"),
    )
    for category in dict.fromkeys(row.category for row in summaries):
        table.add_row(Text(category, style="bold"))
        for row in summaries:
            if row.category == category:
                speed = row.tokens_per_second
                table.add_row(
                    row.contestant,
                    f"{speed.median:.1f} ({speed.low:.1f}-{speed.high:.1f})",
                    _figure(row.mean_accepted_tokens, ".2f"),
                    _figure(row.passes, "d"),
                    f"{row.first_seconds:.2f}",
                    _figure(row.overhead, ".1%"),
                    _figure(row.quality, ".0%"),
                )
    return table


def _ratios(summaries: Sequence[Summary]) -> Table:
    rows = ratio_table(summaries)
    categories = list(dict.fromkeys(row.category for row in summaries))
    table = _table(
        ("contestant",),
        categories,
    )
    for name, by_category in rows.items():
        cells = []
        for category in categories:
            pair = by_category.get(category)
            text = _NONE if pair is None else f"{pair[0]:.2f}/{pair[1]:.2f}"
            cells.append(f"{text}\nslower" if pair is not None and pair[1] < 1 else text)
        table.add_row(name, *cells)
    return table


def _contestants(bench: Bench, summaries: Sequence[Summary]) -> Table:
    table = _table(
        ("contestant", "weights"),
        ("memory", "identical", "ties", "faults"),
    )
    for row in summaries:
        if row.category == ALL:
            verdict = bench.verdicts.get(row.contestant)
            memory = bench.memory.get(row.contestant)
            table.add_row(
                row.contestant,
                bench.settings[row.contestant].get("weights", _NONE),
                _NONE if memory is None else format_bytes(memory),
                *([_NONE] * 3 if verdict is None else [str(verdict[key]) for key in ("identical", "ties", "faults")]),
            )
    return table


def _table(left: Sequence[str], right: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in left:
        table.add_column(column, overflow="fold")
    for column in right:
        table.add_column(column, justify="right", overflow="fold")
    return table


def _figure(value: float | None, form: str) -> str:
    return _NONE if value is None else format(value, form)
