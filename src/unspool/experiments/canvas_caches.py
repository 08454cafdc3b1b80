"""Fast-dLLM's caches: what do keys and values that are as old as the block's first pass cost in right answers?

A cache lets a pass score fewer positions. The same can be had without one, by fewer passes of more tokens each: that is
the control, at equally many positions scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from unspool.engine.canvas_request import Cache
from unspool.experiments import _canvas as canvas
from unspool.experiments import _canvas_compare as compare
from unspool.experiments._canvas import DEPENDENT
from unspool.reproduce.experiment import Case, Expect, Experiment, Figure, Row, Summary
from unspool.reproduce.setup import Setup
from unspool.reproduce.statistics import difference, ratio

CACHES: tuple[Cache, ...] = ("none", "prefix", "dual")
NUMBERS = (1, 2, 3, 4)
COST = "positions"


def cases(setup: Setup) -> list[Case]:
    def measure(cache: Cache, number: int) -> list[Row]:
        method = f"fixed_blocks:block_length=8+top_k:tokens_per_step={number}"
        found = canvas.answers(setup.diffusion_model(), DEPENDENT, method, setup.count, cache=cache)
        return [
            {
                "line": cache,
                "setting": f"{number} a step",
                "task": row["task"],
                "right": row["right"],
                COST: row["fed"],
            }
            for row in found
        ]

    numbers = setup.pick(NUMBERS, (1, 2))
    return [Case(f"{cache}: {n} a step", partial(measure, cache, n)) for cache in CACHES for n in numbers]


def summarise(rows: Sequence[Row]) -> Summary:
    found = compare.scored(rows, COST)
    plain = found["none"][0]
    figures: dict[str, Figure] = {}
    for cache in CACHES[1:]:
        own = found[cache][0]
        other = compare.mixed(found["none"], own.first.cost)
        figures[f"right, {cache} less none"] = difference(own.second.right.tolist(), plain.second.right.tolist())
        figures[f"positions, {cache} / none"] = ratio(own.second.passes.tolist(), plain.second.passes.tolist())
        figures[f"right, {cache} less none, equal positions"] = difference(
            own.second.right.tolist(), other.second.right.tolist()
        )
    return Summary(figures, [compare.table(found, "none", "reported half; passes are positions that were scored")])


EXPERIMENT = Experiment(
    paper="Fast-dLLM: Training-free Acceleration of Diffusion LLM (2025)",
    claim="Keys and values of what lies outside the active block barely change within a block, so that reusing them "
    "scores a fraction of the positions at nearly no loss.",
    control="no cache, and more tokens a step, so that as many positions are scored",
    test="three tasks with several right answers in blocks of 8 of 24 slots, one token a step; the control's settings "
    "chosen on half of the questions, reported on the other",
    cases=cases,
    summarise=summarise,
    expects=[
        bound
        for cache in CACHES[1:]
        for bound in (
            Expect(f"right, {cache} less none", at_least=-0.03, cases=compare.CASES, together=cache),
            Expect(f"positions, {cache} / none", at_most=0.8, cases=compare.CASES, together=cache),
            Expect(f"right, {cache} less none, equal positions", at_least=0.01, cases=compare.CASES),
        )
    ],
    model=canvas.SHORT_MODEL,
    quick_model=canvas.SHORT_MODEL,
    count=200,
    minutes=5,
)
