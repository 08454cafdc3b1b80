"""Fast-dLLM's threshold: confidence decides the number of tokens of a step, instead of a fixed number."""

from __future__ import annotations

from collections.abc import Sequence

from unspool.experiments import _canvas as canvas
from unspool.experiments import _canvas_compare as compare
from unspool.experiments._canvas import DEPENDENT, ONE_BY_ONE
from unspool.reproduce.experiment import Case, Experiment, Row, Summary
from unspool.reproduce.setup import Setup

OURS, FIXED, RANDOM = "threshold", "fixed number", "fixed number, random order"
PAPERS = "threshold:threshold=0.9"
"""The paper's setting."""


def cases(setup: Setup) -> list[Case]:
    numbers = (1, 2, 3, 4, 6, 8, 12)
    return canvas.lines(
        setup,
        DEPENDENT,
        {
            ONE_BY_ONE: {"top_k": "top_k"},
            OURS: canvas.at(canvas.THRESHOLDS, "threshold:threshold={}"),
            FIXED: canvas.at(numbers, "top_k:tokens_per_step={}"),
            RANDOM: canvas.at(numbers, "top_k:tokens_per_step={},order=random"),
        },
    )


def summarise(rows: Sequence[Row]) -> Summary:
    found = compare.scored(rows)
    figures = compare.against_reference(found, OURS, PAPERS)
    for control in (FIXED, RANDOM):
        figures |= compare.compared(found, OURS, control)
    return Summary(figures, [compare.table(found, FIXED)])


EXPERIMENT = Experiment(
    methods=("threshold",),
    claim="Committing every token whose confidence reaches a threshold takes several times fewer passes than one token "
    "a step at nearly no loss, and loses less than a fixed number of tokens a step.",
    control="a fixed number of tokens a step at equal passes: the most confident ones, and random ones",
    test=f"three tasks with several right answers; {compare.PROTOCOL}",
    cases=cases,
    summarise=summarise,
    expects=[
        *compare.lossless_and_fewer(OURS, 2),
        compare.better(OURS, FIXED),
        compare.better(OURS, RANDOM),
    ],
    model=canvas.SHORT_MODEL,
    quick_model=canvas.SHORT_MODEL,
    count=200,
    minutes=5,
)
