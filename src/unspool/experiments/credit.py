"""CreditDecoding: does the history of a slot's predictions say more than its confidence now?

The canvas is the long one, since credit needs passes to grow. The paper's credit and its parameter-free form are
tested. The control without memory gives credit only for the current pass, which merely lowers the threshold.
"""

from __future__ import annotations

from collections.abc import Sequence

from unspool.experiments import _canvas as canvas
from unspool.experiments import _canvas_compare as compare
from unspool.experiments._canvas import SQUARES
from unspool.experiments._canvas_watch import watched
from unspool.methods.diffusion.threshold import Threshold
from unspool.reproduce.experiment import Case, Expect, Experiment, Row, Summary
from unspool.reproduce.setup import Setup
from unspool.reproduce.statistics import mean

OURS, FREE, FORGETFUL, PLAIN = "credit", "parameter-free", "no memory", "threshold"
EARLY = "passes from the last change of a prediction to its commit"


def cases(setup: Setup) -> list[Case]:
    thresholds = (0.7, 0.8, 0.9, 0.95, 0.99)

    def early() -> list[Row]:
        found: dict[str, list[float]] = {}
        for one in watched(setup.diffusion_model(), SQUARES, Threshold, min(50, setup.count)):
            waited = (one.committed - one.since)[: max(1, one.length)]
            found.setdefault(one.task.name, []).append(round(float(waited.mean()), 2))
        return [{"line": "waits", "task": task, "passes": waits} for task, waits in found.items()]

    return [
        *canvas.lines(
            setup,
            SQUARES,
            {
                PLAIN: canvas.at(thresholds, "threshold:threshold={}"),
                OURS: canvas.at(thresholds, "credit+threshold:threshold={}"),
                FORGETFUL: canvas.at(thresholds, "credit:beta=0.0+threshold:threshold={}"),
                FREE: canvas.at(thresholds, "credit:parameter_free=True+threshold:threshold={}"),
            },
        ),
        Case("waits", early),
    ]


def summarise(rows: Sequence[Row]) -> Summary:
    found = compare.scored(rows)
    figures = {EARLY: mean([wait for row in rows if row["line"] == "waits" for wait in row["passes"]])}
    figures |= compare.compared(found, OURS, PLAIN) | compare.compared(found, OURS, FORGETFUL)
    figures |= compare.compared(found, FREE, PLAIN)
    return Summary(figures, [compare.table(found, PLAIN)])


EXPERIMENT = Experiment(
    methods=("credit",),
    claim="The right token is predicted several passes before it is confident enough to be committed, and credit for "
    "that history saves passes at the same accuracy.",
    control="at equal passes: a plain threshold, which may be lower; credit without memory of earlier passes",
    test="Latin squares with one completion and with several on a canvas of 96 slots; settings chosen on half of the "
    "questions, reported on the other",
    cases=cases,
    summarise=summarise,
    expects=[
        Expect(EARLY, at_least=1),
        compare.better(OURS, PLAIN),
        compare.better(OURS, FORGETFUL),
    ],
    model=canvas.LONG_MODEL,
    quick_model=canvas.LONG_MODEL,
    count=200,
    minutes=10,
)
