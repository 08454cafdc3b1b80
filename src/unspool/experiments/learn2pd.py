"""Learn2PD: does a filter that sees the confidences of a whole block know more than a threshold that sees one slot?

A threshold in the same blocks is what a filter that sees one slot alone amounts to. Beside them the oracle that the
filter learns from: each token is committed at the first pass that predicts it.
"""

from __future__ import annotations

from collections.abc import Sequence

from unspool.experiments import _canvas as canvas
from unspool.experiments import _canvas_compare as compare
from unspool.experiments._canvas import DEPENDENT, ONE_BY_ONE
from unspool.methods.diffusion.learn2pd.train import replay
from unspool.recipes.tiny_diffusion.tasks import held_out
from unspool.reproduce.experiment import Case, Expect, Experiment, Row, Summary
from unspool.reproduce.setup import Setup
from unspool.reproduce.statistics import ratio

OURS, PLAIN = "filter", "threshold"
BLOCK = 8
ORACLE = "passes, one by one / oracle"
PAPERS = "fixed_blocks:block_length=8+learn2pd:threshold=0.96"
"""The paper's setting."""


def cases(setup: Setup) -> list[Case]:
    def oracle() -> list[Row]:
        model = setup.diffusion_model()
        every, tasks = canvas.tasks_of(model, DEPENDENT)
        made = []
        for task in tasks:
            prompts = [every.prompt_ids(example.prompt) for example in held_out(task, setup.count)]
            passes = replay(model, prompts, BLOCK, lambda what, done, of: None).passes
            made.append({"line": "oracle", "task": task.name, "passes": " ".join(map(str, passes))})
        return made

    blocks = f"fixed_blocks:block_length={BLOCK}+"
    return [
        *canvas.lines(
            setup,
            DEPENDENT,
            {
                ONE_BY_ONE: {"top_k": blocks + "top_k"},
                OURS: canvas.at((0.5, 0.6, 0.7, 0.8, 0.9, 0.96), blocks + "learn2pd:threshold={}"),
                PLAIN: canvas.at((0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99), blocks + "threshold:threshold={}"),
            },
        ),
        Case("oracle", oracle),
    ]


def summarise(rows: Sequence[Row]) -> Summary:
    found = compare.scored(rows)
    oracle = [float(number) for row in rows if row["line"] == "oracle" for number in row["passes"].split()]
    slots = [float(number) for row in rows if row["line"] == ONE_BY_ONE for number in row["passes"].split()]
    figures = {ORACLE: ratio(slots, oracle)}
    figures |= compare.against_reference(found, OURS, PAPERS) | compare.compared(found, OURS, PLAIN)
    return Summary(figures, [compare.table(found, PLAIN)])


EXPERIMENT = Experiment(
    methods=("learn2pd",),
    claim="Most passes of one token a step come after the token was predicted, and a small filter learns from the "
    "confidences of a block which predictions are final: several times fewer passes at nearly no loss.",
    control="a threshold of confidence in the same blocks at equal passes: what a filter of a single slot amounts to",
    test=f"three tasks with several right answers in blocks of 8, with the filter that ships; {compare.PROTOCOL}",
    cases=cases,
    summarise=summarise,
    expects=[
        Expect(ORACLE, at_least=4, cases=compare.CASES),
        *compare.lossless_and_fewer(OURS, 2),
        compare.better(OURS, PLAIN),
    ],
    model=canvas.SHORT_MODEL,
    quick_model=canvas.SHORT_MODEL,
    count=200,
    minutes=5,
)
