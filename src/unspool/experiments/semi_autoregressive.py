"""LLaDA: do blocks filled from left to right give more right answers than the whole canvas at once?

Both commit the same number of tokens per step, so they take equally many passes. Blocks of one slot are plain left to
right: if these do as well, the order is the cause.
"""

from __future__ import annotations

from collections.abc import Sequence

from unspool.experiments import _canvas as canvas
from unspool.experiments import _canvas_compare as compare
from unspool.experiments._canvas import DEPENDENT, Made
from unspool.experiments._canvas_compare import Scored
from unspool.reproduce.experiment import Case, Expect, Experiment, Figure, Row, Summary
from unspool.reproduce.setup import Setup
from unspool.reproduce.statistics import difference

LENGTHS = (4, 8, 12)
WHOLE, LEFT = "the whole canvas", "left to right"


def cases(setup: Setup) -> list[Case]:
    wanted: dict[str, dict[str, Made]] = {}
    for n in (1, 2):
        step = f"top_k:tokens_per_step={n}"
        wanted[f"blocks, {n} a step"] = {
            f"blocks of {length}": f"fixed_blocks:block_length={length}+{step}" for length in LENGTHS
        }
        wanted[f"{WHOLE}, {n} a step"] = {"": step}
        wanted[f"{LEFT}, {n} a step"] = {"": f"{step},order=left_to_right"}
    return canvas.lines(setup, DEPENDENT, wanted)


def summarise(rows: Sequence[Row]) -> Summary:
    found = compare.scored(rows)
    figures: dict[str, Figure] = {}
    for n in (1, 2):
        best: Scored = max(found[f"blocks, {n} a step"], key=lambda s: s.first.accuracy)
        for control in (WHOLE, LEFT):
            other = found[f"{control}, {n} a step"][0].second.right.tolist()
            figures[f"right, blocks less {control}, {n} a step"] = difference(best.second.right.tolist(), other)
    return Summary(figures, [compare.table(found, f"{WHOLE}, 1 a step")])


EXPERIMENT = Experiment(
    methods=("fixed_blocks",),
    claim="Finishing blocks from left to right gives more right answers than filling the whole canvas in any order.",
    control="the whole canvas in the order of confidence; plain left to right; both with as many tokens a step",
    test="three tasks with several right answers; the length of blocks chosen on half of the questions, reported on "
    "the other",
    cases=cases,
    summarise=summarise,
    expects=[
        Expect(f"right, blocks less {control}, {n} a step", at_least=0.01, cases=compare.CASES)
        for n in (1, 2)
        for control in (WHOLE, LEFT)
    ],
    model=canvas.SHORT_MODEL,
    quick_model=canvas.SHORT_MODEL,
    count=200,
    minutes=6,
)
