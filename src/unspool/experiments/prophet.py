"""Prophet: is the answer known before decoding ends, and does its certainty show when to stop?

The tasks mix questions that are answered after one pass with questions that need many, so a rule that distinguishes
them gains over a stop at a fixed pass. Thresholds are the paper's times a factor, since the scale of logits depends on
the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from unspool.engine.canvas_request import Parts
from unspool.experiments import _canvas as canvas
from unspool.experiments import _canvas_compare as compare
from unspool.experiments._canvas import DEPENDENT, ONE_BY_ONE, Made
from unspool.experiments._canvas_watch import watched
from unspool.methods.diffusion.fixed_blocks import FixedBlocks
from unspool.methods.diffusion.prophet import Prophet, ProphetOptions
from unspool.methods.diffusion.top_k import TopK
from unspool.reproduce.experiment import Case, Expect, Experiment, Row, Summary
from unspool.reproduce.setup import Setup
from unspool.reproduce.statistics import share

OURS, STATIC, PLAIN = "prophet", "fixed stop", "threshold"
TASKS = ("sort", "addition", "chain", *DEPENDENT)
KNOWN = "right answers that are predicted by half of the passes"


def cases(setup: Setup) -> list[Case]:
    def known() -> list[Row]:
        found: dict[str, str] = {}
        for one in watched(setup.diffusion_model(), TASKS, TopK, min(50, setup.count)):
            if one.right:
                slots = slice(*one.task.answer) if one.task.answer else slice(one.length)
                half = int(one.since[slots].max()) <= one.passes / 2
                found[one.task.name] = found.get(one.task.name, "") + "01"[half]
        return [{"line": "known", "task": task, "known": digits} for task, digits in found.items()]

    def stopping(scale: float) -> Parts:
        options = ProphetOptions(high=7.5 * scale, middle=5.0 * scale, low=2.5 * scale)
        return Parts(TopK(), FixedBlocks(), stop=Prophet(options))

    scales: dict[str, Made] = {f"bars x {s}": partial(stopping, s) for s in (0.5, 1, 1.5, 2, 2.5, 3)}
    return [
        *canvas.lines(
            setup,
            TASKS,
            {
                ONE_BY_ONE: {"top_k": "top_k"},
                OURS: scales,
                STATIC: canvas.at((1, 2, 4, 8, 12, 16, 20), "static_stop:passes={}+top_k"),
                PLAIN: canvas.at((0.5, 0.7, 0.8, 0.9, 0.99), "threshold:threshold={}"),
            },
        ),
        Case("known", known),
    ]


def summarise(rows: Sequence[Row]) -> Summary:
    found = compare.scored(rows)
    digits = [digit == "1" for row in rows if row["line"] == "known" for digit in row["known"]]
    figures = {KNOWN: share(digits)}
    figures |= compare.against_reference(found, OURS)
    for control in (STATIC, PLAIN):
        figures |= compare.compared(found, OURS, control)
    return Summary(figures, [compare.table(found, STATIC)])


EXPERIMENT = Experiment(
    methods=("prophet", "static_stop"),
    claim="The answer is predicted long before decoding ends, and the gap between the two largest logits says when all "
    "the rest can be filled at once: fewer passes at the same accuracy.",
    control="at equal passes: a stop at a fixed pass; and, for the reader, a plain threshold",
    test="six tasks, three with one right answer and three with several, one token a step until the stop; settings "
    "chosen on half of the questions, reported on the other",
    cases=cases,
    summarise=summarise,
    expects=[
        Expect(KNOWN, at_least=0.5, cases=100),
        *compare.lossless_and_fewer(compare.chosen(OURS), 1.3, loss=0.05),
        compare.better(OURS, STATIC),
    ],
    model=canvas.SHORT_MODEL,
    quick_model=canvas.SHORT_MODEL,
    count=100,
    minutes=6,
)
