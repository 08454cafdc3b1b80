"""LLaDA: which masks to replace first, the most confident ones or random ones?

Both orders commit the same number of tokens per step, so they take equally many passes. The tasks are those of the
long model, which a bad order gets wrong; on lists in any order, ``parallelbench`` finds the opposite.
"""

from __future__ import annotations

from collections.abc import Sequence

from unspool.experiments import _canvas as canvas
from unspool.experiments import _canvas_compare as compare
from unspool.experiments._canvas import SQUARES
from unspool.reproduce.experiment import Case, Expect, Experiment, Figure, Row, Summary
from unspool.reproduce.setup import Setup
from unspool.reproduce.statistics import difference

NUMBERS = (24, 12, 8, 6)
CONFIDENT, LEFT, RANDOM = "confidence", "left_to_right", "random"
TASKS = ("json", *SQUARES)


def cases(setup: Setup) -> list[Case]:
    return canvas.lines(
        setup,
        TASKS,
        {
            order: {f"{n} a step": f"top_k:tokens_per_step={n},order={order}" for n in NUMBERS}
            for order in (CONFIDENT, LEFT, RANDOM)
        },
    )


def over_all(rows: Sequence[Row], control: str) -> Figure:
    """Right answers of the confident order less those of another, the mean over all numbers of tokens a step; nothing
    is chosen, so all questions count."""
    found = compare.scored(rows)
    right = {
        line: [
            sum(values) / len(settings)
            for half in ("first", "second")
            for values in zip(*(getattr(s, half).right.tolist() for s in settings), strict=True)
        ]
        for line, settings in found.items()
    }
    return difference(right[CONFIDENT], right[control])


def summarise(rows: Sequence[Row]) -> Summary:
    figures = {f"right, {CONFIDENT} less {other}": over_all(rows, other) for other in (RANDOM, LEFT)}
    one = [row for row in rows if row["task"] == "latin_free"]
    figures["right, confidence less random, several right answers"] = over_all(one, RANDOM)
    return Summary(figures, [compare.table(compare.scored(rows), RANDOM, "second half of the questions")])


EXPERIMENT = Experiment(
    methods=("top_k",),
    claim="Replacing the most confident masks first gives more right answers than replacing random ones.",
    control="the same number of tokens a step at random places; and from left to right",
    test="JSON and Latin squares on a canvas of 96 slots, 6 to 24 tokens a step",
    cases=cases,
    summarise=summarise,
    expects=[
        Expect(f"right, {CONFIDENT} less {RANDOM}", at_least=0.01, cases=compare.CASES),
        Expect(f"right, {CONFIDENT} less {LEFT}", at_least=0.01, cases=compare.CASES),
    ],
    model=canvas.LONG_MODEL,
    quick_model=canvas.LONG_MODEL,
    count=100,
    minutes=8,
)
