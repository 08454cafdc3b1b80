"""EXSPEC: running rows of equal length together avoids most of the padding that a batch of drifting rows needs.

Which rows share a pass depends on their lengths alone, not on the backend, so this runs on the default one; that rows
keep their texts in one padded block is the experiment ``eqspec``. Passes of four rows, out of a window of four (EQSPEC)
and of 8 and 12; beside them, windows whose passes take the first rows, equal or not. Left out: time.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from unspool.engine.batch import BatchPlan, OpenRow
from unspool.experiments._batching import alignment, decode_batch, digests
from unspool.methods.batching.eqspec import EqSpec, EqSpecOptions
from unspool.methods.batching.exspec import ExSpec, ExSpecOptions
from unspool.reproduce.experiment import Case, Expect, Experiment, Figure, Row, Summary, Table
from unspool.reproduce.setup import Setup
from unspool.reproduce.statistics import of_sums, ratio, ratio_of_ratios
from unspool.suites.prompts import Prompt

ROWS = 4
EQ, NARROW, WIDE, TURNS = "eqspec", "exspec, window 8", "exspec, window 12", "window 12 by turns"


class ByTurns(ExSpec):
    """Takes those rows of its window that waited longest, whatever their lengths."""

    def choose(self, rows: Sequence[OpenRow]) -> Sequence[int]:
        longest = sorted(rows, key=lambda row: -row.waited)
        return [row.index for row in longest[: self.options.batch_size]]


def plans() -> dict[str, BatchPlan]:
    """By variant."""
    return {
        EQ: EqSpec(EqSpecOptions(ROWS)),
        NARROW: ExSpec(ExSpecOptions(ROWS, 2 * ROWS)),
        WIDE: ExSpec(ExSpecOptions(ROWS, 3 * ROWS)),
        TURNS: ByTurns(ExSpecOptions(ROWS, 3 * ROWS)),
    }


def cases(setup: Setup) -> list[Case]:
    """A case is a set of 24 prompts with all plans."""

    def measure(prompts: Sequence[Prompt]) -> list[Row]:
        model, made = setup.language_model(), []
        for name, plan in plans().items():
            steps = decode_batch(model, prompts, plan, setup.pick(48, 4), setup.pick(512, 40))
            made.append({"variant": name, "texts": digests(steps, len(prompts)), **alignment(steps)})
        return made

    prompts, size = setup.prompts("mixed"), 6 * ROWS
    sets = [prompts[i : i + size] for i in range(0, len(prompts), size)]
    return [Case(part[0].id, partial(measure, part)) for part in sets]


def summarise(rows: Sequence[Row]) -> Summary:
    """Shares of passes and slots; a bootstrap over sets of prompts."""
    by = {name: [row for row in rows if row["variant"] == name] for name in plans()}
    same = [row["texts"] == alone["texts"] for found in by.values() for row, alone in zip(found, by[EQ], strict=True)]

    def column(name: str, what: str) -> list[float]:
        return [row[what] for row in by[name]]

    figures = {"sets of texts identical to eqspec's": Figure(sum(same) / len(same), count=len(same))}
    for name in by:
        figures[f"passes of equal lengths, {name}"] = ratio(column(name, "equal"), column(name, "several"))
    for name in (NARROW, WIDE):
        counts = [column(n, what) for n in (name, EQ) for what in ("equal", "several")]
        figures[f"passes of equal lengths, {name}, less eqspec"] = of_sums(counts, lambda a, b, c, d: a / b - c / d)
    padding = [column(n, what) for n in (WIDE, EQ) for what in ("padded", "slots")]
    figures["padding of the slots, window 12 / eqspec"] = ratio_of_ratios(*padding)
    figures["passes, window 12 / eqspec"] = ratio(column(WIDE, "passes"), column(EQ, "passes"))
    lines = [
        (name, *(str(sum(column(name, what))) for what in ("passes", "several", "equal", "padded", "slots")))
        for name in by
    ]
    return Summary(figures, [Table("", ("plan", "passes", "several", "equal", "padded", "slots"), lines)])


EXPERIMENT = Experiment(
    methods=("exspec",),
    claim="Keeping more rows open than a pass holds and running those of equal length together avoids most "
    "realignments of a batch, and leaves the texts as they are.",
    control="eqspec, whose passes hold the same rows; a window as large whose rows take turns",
    test=f"passes of {ROWS} rows, prompt lookup, greedy, unspool's mixed prompts in sets of {6 * ROWS}",
    cases=cases,
    summarise=summarise,
    requires=[Expect("sets of texts identical to eqspec's", at_least=1)],
    expects=[
        Expect("passes of equal lengths, exspec, window 12", at_least=0.5, cases=20),
        Expect("passes of equal lengths, exspec, window 12, less eqspec", at_least=0.2, cases=20),
        Expect("padding of the slots, window 12 / eqspec", at_most=0.7, cases=20),
    ],
    model="smollm2-135m",
    count=72,
    minutes=10,
)
