"""ParallelBench: the loss of parallel commits depends on dependencies between tokens, not on the model.

The same model, with the same number of tokens per step, answers tasks whose answer the prompt determines and tasks with
several right answers. All questions count: no setting is chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from unspool.experiments import _canvas as canvas
from unspool.experiments import _canvas_compare as compare
from unspool.experiments._canvas import DEPENDENT
from unspool.reproduce.experiment import Case, Expect, Experiment, Figure, Row, Summary, Table
from unspool.reproduce.setup import Setup
from unspool.reproduce.statistics import difference

DETERMINED = ("copy", "reverse", "sort", "replace_index", "addition", "python")
NUMBERS = (1, 2, 4)
LOST = "right, two tokens a step less one"
RANDOM = "right, two tokens a step, random order less confidence"
GROUPS = {"determined": DETERMINED, "dependent": DEPENDENT}


def cases(setup: Setup) -> list[Case]:
    return canvas.lines(
        setup,
        [*DETERMINED, *DEPENDENT],
        {order: canvas.at(NUMBERS, f"top_k:tokens_per_step={{}},order={order}") for order in ("confidence", "random")},
    )


def summarise(rows: Sequence[Row]) -> Summary:
    right: dict[tuple[str, str, str], list[float]] = {}
    for row in rows:
        group = "dependent" if row["task"] in DEPENDENT else "determined"
        for name in (group, row["task"]):
            right.setdefault((name, row["line"], row["setting"]), []).extend(float(digit) for digit in row["right"])

    def of(name: str, order: str, n: int) -> list[float]:
        return right[name, order, f"top_k:tokens_per_step={n},order={order}"]

    figures: dict[str, Figure] = {}
    for group in GROUPS:
        figures[f"{LOST}, {group}"] = difference(of(group, "confidence", 2), of(group, "confidence", 1))
        figures[f"{RANDOM}, {group}"] = difference(of(group, "random", 2), of(group, "confidence", 2))
    settings = list(dict.fromkeys((order, setting) for _, order, setting in right))
    header = ["task", *(f"{setting.partition(':')[2]}, %" for _, setting in settings)]
    table = [
        (task, *(f"{100 * fmean(right[task, order, setting]):.0f}" for order, setting in settings))
        for task in (*DETERMINED, *DEPENDENT)
    ]
    return Summary(figures, [Table("", header, table)])


EXPERIMENT = Experiment(
    paper="ParallelBench: Understanding the Trade-offs of Parallel Decoding in Diffusion LLMs (2025)",
    claim="Tokens that depend on one another go wrong when they are committed together, however well the model knows "
    "the task, while answers that the prompt determines do not; random order then loses less than that of confidence.",
    control="tasks with one right answer, at the same tokens a step by the same model",
    test="six tasks with one right answer and three with several, one and two tokens a step",
    cases=cases,
    summarise=summarise,
    expects=[
        Expect(f"{LOST}, dependent", at_most=-0.2, cases=compare.CASES),
        Expect(f"{LOST}, determined", at_least=-0.03, cases=compare.CASES),
        Expect(f"{RANDOM}, dependent", at_least=0.05, cases=compare.CASES),
    ],
    model=canvas.SHORT_MODEL,
    quick_model=canvas.SHORT_MODEL,
    count=80,
    minutes=4,
)
