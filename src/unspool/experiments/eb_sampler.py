"""EB-Sampler: an entropy budget for what tokens of one step may depend on one another, beside rules without one."""

from __future__ import annotations

from collections.abc import Sequence

from unspool.experiments import _canvas as canvas
from unspool.experiments import _canvas_compare as compare
from unspool.experiments._canvas import DEPENDENT, ONE_BY_ONE
from unspool.reproduce.experiment import Case, Experiment, Row, Summary
from unspool.reproduce.setup import Setup

OURS, FIXED, PLAIN = "entropy budget", "fixed number", "threshold"
PAPERS = "eb_sampler:gamma=0.1"
"""The setting of transformers; the paper has one for each model."""


def cases(setup: Setup) -> list[Case]:
    return canvas.lines(
        setup,
        DEPENDENT,
        {
            ONE_BY_ONE: {"top_k": "top_k"},
            OURS: canvas.at((0.01, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5), "eb_sampler:gamma={}"),
            FIXED: canvas.at((2, 3, 4, 6, 8), "top_k:tokens_per_step={},order=entropy"),
            PLAIN: canvas.at(canvas.THRESHOLDS, "threshold:threshold={}"),
        },
    )


def summarise(rows: Sequence[Row]) -> Summary:
    found = compare.scored(rows)
    figures = compare.against_reference(found, OURS, PAPERS)
    for control in (FIXED, PLAIN):
        figures |= compare.compared(found, OURS, control)
    return Summary(figures, [compare.table(found, PLAIN)])


EXPERIMENT = Experiment(
    methods=("eb_sampler",),
    claim="Committing as many tokens as an entropy budget allows takes two to three times fewer passes than one token "
    "a step without loss, and loses less than a fixed number of tokens a step.",
    control="at equal passes: a fixed number of tokens a step in the order of entropy; a threshold of confidence",
    test=f"three tasks with several right answers; {compare.PROTOCOL}",
    cases=cases,
    summarise=summarise,
    expects=[
        *compare.lossless_and_fewer(OURS, 2),
        compare.better(OURS, FIXED),
        compare.better(OURS, PLAIN),
    ],
    model=canvas.SHORT_MODEL,
    quick_model=canvas.SHORT_MODEL,
    count=200,
    minutes=5,
)
