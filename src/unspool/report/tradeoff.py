"""The page's part on accuracy against passes, with dependent and other tasks separate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from statistics import fmean
from typing import Any

from unspool.bench.tradeoff import ORACLE, Mean, Point, Tradeoff, best, means
from unspool.methods import Chosen
from unspool.methods._compose import chosen
from unspool.methods.spec import parse
from unspool.report.drawing import CARD, MUTED, Canvas, Look, chart
from unspool.report.looks import coloured, marker_key
from unspool.report.parts import Part, Section, Table
from unspool.report.words import counted, facts, number, share

LOSS = 0.01
"""Accuracy that a setting may lose against one token per step to be compared by its passes."""

KINDS = {False: "Tasks whose prompt determines the answer", True: "Tasks with several right answers"}

FEWEST = ("method", "options", "accuracy", "passes", "times fewer")
"""Columns of ``fewest``."""

Options = dict[tuple[str, str], str]
"""A setting in words, by its line and method."""


def tradeoff_part(name: str, tradeoff: Tradeoff) -> Part:
    """All sections. ``name`` is unique on the page."""
    look = coloured(list(dict.fromkeys(point.line for point in tradeoff.points if point.line != ORACLE)))
    look[ORACLE] = Look(MUTED, "D")
    kinds = [kind for kind in KINDS if any(point.dependent == kind for point in tradeoff.points)]
    first, more = headline(tradeoff)
    return Part(
        name,
        f"Tradeoff: {tradeoff.model}",
        first,
        more,
        tradeoff.command,
        sections=[
            *(_section(f"{name}-{int(kind)}", tradeoff, kind, look) for kind in kinds),
            _commits(tradeoff),
            _tasks(tradeoff.points),
            Section(
                "How it was made",
                tables=[
                    Table("Machine and versions", ["what", "value"], list(facts(tradeoff.about)), words=frozenset({1}))
                ],
            ),
        ],
    )


def headline(tradeoff: Tradeoff) -> tuple[str, list[str]]:
    """How many passes the best method saves at a loss of at most a point, for each kind of task."""
    told = []
    for kind, words in ((False, "where the prompt determines the answer"), (True, "where several answers are right")):
        found = means(tradeoff.points, kind)
        if not found:
            continue
        kept = [mean for line, mean in best(found, LOSS).items() if line != ORACLE]
        first = min(kept, key=lambda mean: mean.passes)
        told.append(
            f"{first.line} needs {number(tradeoff.slots / first.passes, 1)} times fewer passes than one token per "
            f"step {words}, at {share(first.accuracy)} accuracy."
        )
    questions = len(tradeoff.points[0].right)
    return told[0], [*told[1:], f"{counted(questions, 'held-out question')} per task; {tradeoff.slots} slots."]


def fewest(tradeoff: Tradeoff, dependent: bool) -> list[list[str]]:
    """Per line, the fewest passes that lose at most ``LOSS``, sorted by passes; empty without such tasks."""
    found, options = means(tradeoff.points, dependent), options_of(tradeoff.points)
    kept = best(found, LOSS).values() if found else ()
    return [
        [m.line, options[m.line, m.method], share(m.accuracy), number(m.passes), number(tradeoff.slots / m.passes, 1)]
        for m in sorted(kept, key=lambda m: m.passes)
    ]


def _section(name: str, tradeoff: Tradeoff, dependent: bool, look: dict[str, Look]) -> Section:
    found, options = means(tradeoff.points, dependent), options_of(tradeoff.points)
    plot = chart(
        f"{name}-tradeoff",
        "Accuracy against passes",
        "Each line is a method at several settings: on the x axis passes of the model per canvas, on the y axis "
        "the share of right answers.",
        lambda narrow: 360 if narrow else 460,
        partial(_draw, found=found, options=options, look=look),
    )
    text = (
        f"A line further left and higher is better. For each question, the oracle takes the fewest passes at which "
        f"plain threshold decoding is right, which no method knows beforehand. {tradeoff.slots} passes are one token "
        "per step."
    )
    table = Table(
        "Every setting",
        ["method", "options", "accuracy", "passes", "tokens per pass"],
        [
            [
                mean.line,
                options[mean.line, mean.method],
                share(mean.accuracy),
                number(mean.passes),
                number(tradeoff.slots / mean.passes),
            ]
            for mean in found
        ],
        "Passes are means over questions; all tasks have equal weight.",
        words=frozenset({1}),
    )
    few = Table(
        f"Fewest passes at most {share(LOSS, 0)} below one token per step",
        list(FEWEST),
        fewest(tradeoff, dependent),
        words=frozenset({1}),
        open=True,
    )
    keys = [marker_key(line, look[line]) for line in dict.fromkeys(mean.line for mean in found)]
    return Section(KINDS[dependent], [text], keys, plot, [few, table])


def _draw(canvas: Canvas, found: Sequence[Mean], options: Options, look: dict[str, Look]) -> None:
    axes = canvas.axes
    axes.grid(axis="y")
    axes.set_xscale("log", base=2)
    for line in dict.fromkeys(mean.line for mean in found):
        own = sorted((mean for mean in found if mean.line == line), key=lambda mean: mean.passes)
        one = look[line]
        axes.plot([m.passes for m in own], [100 * m.accuracy for m in own], color=one.colour, lw=1.2, alpha=0.7)
        for mean in own:
            (point,) = axes.plot(
                mean.passes, 100 * mean.accuracy, marker=one.marker, color=one.colour, ms=7, mec=CARD, mew=0.8
            )
            label = f"{line} {options[line, mean.method]}"
            canvas.tip(point, f"{label}: {100 * mean.accuracy:.1f} % in {mean.passes:.2f} passes")
    most = max(mean.passes for mean in found)
    ticks = [2**i for i in range(int(most).bit_length() + 1) if 2**i <= most * 1.05]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_ylim(-3, 103)
    axes.set_xlabel("passes per canvas")
    axes.set_ylabel("right answers, %")


def _commits(tradeoff: Tradeoff) -> Section:
    found = [mean for kind in KINDS for mean in best(means(tradeoff.points, kind), LOSS).values() if mean.commits]
    options = options_of(tradeoff.points)
    merged: dict[str, dict[int, int]] = {}
    for mean in found:
        own = merged.setdefault(f"{mean.line} {options[mean.line, mean.method]}", {})
        for tokens, passes in mean.commits.items():
            own[tokens] = own.get(tokens, 0) + passes
    groups = (range(1, 2), range(2, 4), range(4, 8), range(8, 16), range(16, 10**6))
    rows = []
    for line, commits in merged.items():
        total = sum(commits.values())
        rows.append([line, *(share(sum(n for t, n in commits.items() if t in group) / total, 0) for group in groups)])
    names = ["1 token", "2 to 3", "4 to 7", "8 to 15", "16 and more"]
    table = Table("Share of passes by the tokens that they commit", ["setting", *names], rows, open=True)
    text = "A mean can hide that most tokens come in one pass and the rest one by one."
    return Section("Tokens per pass", [text], tables=[table])


def _tasks(points: Sequence[Point]) -> Section:
    tasks = list(dict.fromkeys(point.task for point in points))
    options = options_of(points)
    cells: dict[str, dict[str, Point]] = {}
    for point in points:
        cells.setdefault(f"{point.line} {options[point.line, point.method]}".strip(), {})[point.task] = point
    rows = [
        [setting, *(f"{share(fmean(own[t].right), 0)} in {number(fmean(own[t].passes), 1)}" for t in tasks)]
        for setting, own in cells.items()
    ]
    return Section("By task", tables=[Table("Right answers and mean passes", ["setting", *tasks], rows, open=False)])


def options_of(points: Sequence[Point]) -> Options:
    """What distinguishes the settings of a line: all options that any of them has, as one line of text.

    A spec omits defaults; they are shown if another setting of the line names the option.
    """
    lines: dict[str, dict[str, list[Chosen[Any]]]] = {}
    for point in points:
        lines.setdefault(point.line, {})[point.method] = chosen(point.method) if point.method else []
    found = {}
    for line, settings in lines.items():
        swept = {(p.row.name, option) for parts in settings.values() for p in parts for option in parse(p.spec).values}
        for method, parts in settings.items():
            pairs = [
                f"{f.name}={getattr(part.options, f.name)}"
                for part in parts
                for f in fields(part.options)
                if (part.row.name, f.name) in swept
            ]
            found[line, method] = ", ".join(pairs)
    return found
