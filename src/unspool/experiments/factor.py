"""Fast-dLLM's factor: a confidence threshold that rises with the number of tokens of a step, against a fixed one."""

from __future__ import annotations

from collections.abc import Sequence

from unspool.experiments import _canvas as canvas
from unspool.experiments import _canvas_compare as compare
from unspool.experiments._canvas import DEPENDENT, ONE_BY_ONE
from unspool.reproduce.experiment import Case, Experiment, Row, Summary
from unspool.reproduce.setup import Setup

OURS, PLAIN = "factor", "threshold"
PAPERS = "factor:factor=1.0"
"""The paper's setting."""


def cases(setup: Setup) -> list[Case]:
    return canvas.lines(
        setup,
        DEPENDENT,
        {
            ONE_BY_ONE: {"top_k": "top_k"},
            OURS: canvas.at((0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0), "factor:factor={}"),
            PLAIN: canvas.at(canvas.THRESHOLDS, "threshold:threshold={}"),
        },
    )


def summarise(rows: Sequence[Row]) -> Summary:
    found = compare.scored(rows)
    figures = compare.against_reference(found, OURS, PAPERS) | compare.compared(found, OURS, PLAIN)
    return Summary(figures, [compare.table(found, PLAIN)])


EXPERIMENT = Experiment(
    methods=("factor",),
    claim="A bar of confidence that rises with the number of tokens that are committed together takes fewer passes "
    "than a fixed threshold at comparable accuracy.",
    control="a fixed threshold at equal passes",
    test=f"three tasks with several right answers; {compare.PROTOCOL}",
    cases=cases,
    summarise=summarise,
    expects=[*compare.lossless_and_fewer(OURS, 2), compare.better(OURS, PLAIN)],
    model=canvas.SHORT_MODEL,
    quick_model=canvas.SHORT_MODEL,
    count=200,
    minutes=4,
)
