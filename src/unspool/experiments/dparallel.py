"""dParallel: does certainty-forcing distillation save passes, and is the certainty term the cause?

Two students are distilled from the model's own correct answers, one with the certainty term and one without (beta 0).
The number of different answers that a student still gives shows the cost in variety.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from unspool.decoding.canvas import DiffusionModel
from unspool.decoding.load import load
from unspool.experiments import _canvas as canvas
from unspool.experiments import _canvas_compare as compare
from unspool.experiments._canvas import DEPENDENT, ONE_BY_ONE, Made
from unspool.methods.diffusion.entropy_threshold.data import FILE
from unspool.methods.diffusion.entropy_threshold.train import CertaintyOptions, train
from unspool.models.diffusion import find
from unspool.recipes.tiny_diffusion.tasks import held_out
from unspool.reproduce.experiment import Case, Expect, Experiment, Row, Summary
from unspool.reproduce.setup import Setup
from unspool.reproduce.statistics import ratio

BASE, ALONE, CERTAIN = "base", "own answers alone", "certainty"
PAPERS = "fixed_blocks:block_length=8+entropy_threshold:threshold=0.5"
"""The paper's setting."""
BETAS = {ALONE: 0.0, CERTAIN: 2.0}
ASKED = 30
"""Questions that are asked several times."""


def cases(setup: Setup) -> list[Case]:
    directory = tempfile.TemporaryDirectory(prefix="unspool-dparallel-")

    def student(line: str) -> DiffusionModel:
        if line == BASE:
            return setup.diffusion_model()
        own = Path(directory.name) / line
        made = [*Path(directory.name).glob(f"*/{FILE}")]
        own.mkdir(exist_ok=True)
        if made:
            shutil.copy(made[0], own)  # all students have the same targets
        options = CertaintyOptions(
            beta=BETAS[line], questions=setup.pick(150, 1), max_steps=setup.pick(200, 1), batch_size=setup.pick(64, 2)
        )
        setup.report(f"distilling, beta {BETAS[line]:g}")
        train(find(setup.model), own, options)
        return load(str(own), expect=DiffusionModel)

    def measure(line: str) -> list[Row]:
        model, draws = student(line), setup.pick(8, 2)
        values = setup.pick((0.05, 0.2, 0.35, 0.5, 0.7, 1.0), (0.5,))
        wanted: dict[str, Made] = {
            **canvas.at(values, "entropy_threshold:threshold={}"),
            **canvas.at(values, "fixed_blocks:block_length=8+entropy_threshold:threshold={}"),
        }
        rows = [
            {"line": line, "setting": setting, **row}
            for setting, made in wanted.items()
            for row in canvas.answers(model, DEPENDENT, made, setup.count)
        ]
        if line == BASE:
            rows += [
                {"line": ONE_BY_ONE, "setting": "top_k", **row}
                for row in canvas.answers(model, DEPENDENT, "top_k", setup.count)
            ]
        for row in rows:
            del row["fed"]
        return [*rows, {"line": f"draws, {line}", "different": different(model, min(ASKED, setup.count), draws)}]

    return [Case(line, partial(measure, line)) for line in (BASE, *BETAS)]


def different(model: DiffusionModel, count: int, draws: int) -> list[int]:
    """Of each of the first ``count`` questions to shuffle a list, how many different answers the draws give."""
    every, (task,) = canvas.tasks_of(model, ["shuffle"])
    prompts = [every.prompt_ids(example.prompt) for example in held_out(task, count)]
    drawn = [
        [tuple(result.token_ids) for result in model.generate(prompts, method="top_k", temperature=1.0, seed=seed)]
        for seed in range(draws)
    ]
    return [len(set(answers)) for answers in zip(*drawn, strict=True)]


def summarise(rows: Sequence[Row]) -> Summary:
    found = compare.scored(rows)
    drawn = {row["line"]: row["different"] for row in rows if "different" in row}
    reference = found[ONE_BY_ONE][0]
    figures = compare.against_reference(found, CERTAIN, PAPERS)
    ours = compare.within(found[CERTAIN], reference).second.passes.tolist()
    for control in (BASE, ALONE):
        theirs = compare.within(found[control], reference).second.passes.tolist()
        figures[f"passes at equal accuracy, {CERTAIN} / {control}"] = ratio(ours, theirs)
        figures |= compare.compared(found, CERTAIN, control)
        figures[f"different answers, {CERTAIN} / {control}"] = ratio(
            drawn[f"draws, {CERTAIN}"], drawn[f"draws, {control}"]
        )
    return Summary(figures, [compare.table(found, ALONE)])


EXPERIMENT = Experiment(
    methods=("entropy_threshold",),
    claim="A model that is distilled from its own answers to be certain of them takes fewer passes at the same "
    "accuracy, and it is the certainty term that does it.",
    control="the same distillation without the certainty term; the model that was not distilled",
    test=f"three tasks with several right answers, 200 steps on the model's own right answers; {compare.PROTOCOL}",
    cases=cases,
    summarise=summarise,
    expects=[
        Expect(compare.kept(CERTAIN), at_least=-0.03, cases=compare.CASES, together="fewer passes without loss"),
        Expect(
            f"passes at equal accuracy, {CERTAIN} / {BASE}",
            at_most=0.9,
            cases=compare.CASES,
            together="fewer passes without loss",
        ),
        compare.better(CERTAIN, ALONE),
    ],
    model=canvas.SHORT_MODEL,
    quick_model=canvas.SHORT_MODEL,
    count=200,
    minutes=14,
)
