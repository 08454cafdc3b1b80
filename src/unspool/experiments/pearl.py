"""PEARL: running draft and target model in parallel gives more tokens in a given time than running them in turn.

This machine does not have two processors to spare, so the clock is virtual: a step of PEARL takes the longer of a block
of drafts and a pass of the target; ordinary speculation takes their sum. Acceptance is real. Ordinary speculation uses
the draft length that is best on the other half of the texts. The engine's own ``pearl`` must give plain decoding's text
in the replayed number of passes. Not tested: time on this machine, and sampled texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from unspool.experiments._assistant import with_draft
from unspool.experiments._drafting import decode_with
from unspool.experiments._replay import draft_along, fixed, pearl, replay
from unspool.methods import PLAIN
from unspool.methods.drafters.pearl import Pearl, PearlOptions
from unspool.reproduce.experiment import Case, Expect, Experiment, Figure, Row, Summary, Table
from unspool.reproduce.setup import Setup
from unspool.reproduce.statistics import of_sums, ratio_of_ratios
from unspool.suites.prompts import Prompt

SPEEDS = (3, 5, 10)
"""How many times as fast as the target the draft model is taken to be; PEARL's block has as many tokens."""

LENGTHS = range(1, 13)
REPLAYED = Expect("passes of the engine / replayed", at_least=0.97, at_most=1.03)
"""Not exactly 1: where a section of the cache ends, the backend cuts a draft, which may cost a pass."""

IDENTICAL = Expect("texts identical to plain decoding's", at_least=1)


def cases(setup: Setup) -> list[Case]:
    """A case is a prompt; those at even places choose the length of ordinary drafts."""

    def measure(prompt: Prompt, part: str) -> list[Row]:
        model, draft, size = with_draft(setup)
        length = setup.pick(64, 8)
        ids = model.encode(prompt.text)
        output = model.generate(ids, method=PLAIN, max_new_tokens=length).token_ids
        text = draft_along(draft, size, ids, output)
        parallel = Pearl(PearlOptions(), draft, size)
        plain, decoded = (decode_with(model, drafter, prompt, length) for drafter in (PLAIN, parallel))
        parallel.close()
        return [
            {
                "part": part,
                "tokens": len(output),
                "identical": plain["digest"] == decoded["digest"],
                "passes": [decoded["passes"], pearl(text, parallel.options.num_assistant_tokens)[0]],
                "pearl": {str(c): pearl(text, c) for c in SPEEDS},
                "fixed": {str(k): replay(text, fixed(k)) for k in LENGTHS},
            }
        ]

    return [Case(p.id, partial(measure, p, ("choose", "test")[i % 2])) for i, p in enumerate(setup.prompts())]


def formula(passes: Any, tests: Any, rejections: Any, tokens: Any, block: int) -> Any:
    """Measured tokens a pass divided by what follows if each draft is right with the same chance, independently."""
    a = 1 - rejections / tests
    return tokens / passes * (1 - a) * (1 + a / (1 - a**block))


def summarise(rows: Sequence[Row]) -> Summary:
    """Speeds on the texts that no length was chosen on, paired by text."""
    choose, test = ([row for row in rows if row["part"] == part] for part in ("choose", "test"))
    tokens = [row["tokens"] for row in test]
    passes = [sum(row["passes"][i] for row in rows) for i in (0, 1)]
    figures = {
        IDENTICAL.figure: Figure(sum(row["identical"] for row in rows) / len(rows), count=len(rows)),
        REPLAYED.figure: Figure(passes[0] / passes[1], count=len(rows)),
    }
    lines = []
    for c in SPEEDS:

        def ordinary(part: Sequence[Row], k: int, c: int = c) -> list[float]:
            return [row["fixed"][str(k)][1] + row["fixed"][str(k)][0] / c for row in part]

        best = min(LENGTHS, key=lambda k: sum(ordinary(choose, k)))
        steps, tests, rejections = ([row["pearl"][str(c)][i] for row in test] for i in range(3))
        figures[f"speed, pearl / draft_model, c = {c}"] = ratio_of_ratios(tokens, steps, tokens, ordinary(test, best))
        figures[f"measured / formula, c = {c}"] = of_sums([steps, tests, rejections, tokens], partial(formula, block=c))
        speeds = (sum(tokens) / sum(steps), sum(tokens) / sum(ordinary(test, best)))
        lines.append((f"{c}", f"{1 - sum(rejections) / sum(tests):.3f}", *(f"{x:.2f}" for x in speeds), str(best)))
    return Summary(figures, [Table("", ("c", "accepted", "pearl", "draft_model", "of length"), lines)])


EXPERIMENT = Experiment(
    methods=("pearl",),
    claim="Drafting during the target's pass instead of before it gives more tokens in a given time than ordinary "
    "speculation with its best length of draft.",
    control="draft_model with the length that is best on other texts",
    test="a virtual clock of two processors, on which the draft model is 3, 5 and 10 times as fast; greedy, the "
    "model's own int4 weights drafting, functions of HumanEval",
    cases=cases,
    summarise=summarise,
    requires=[IDENTICAL, REPLAYED],
    expects=[
        Expect("speed, pearl / draft_model, c = 3", at_least=1.1, cases=10),
        Expect("speed, pearl / draft_model, c = 5", at_least=1.1, cases=10),
        Expect("speed, pearl / draft_model, c = 10", at_least=1.1, cases=10),
        Expect("measured / formula, c = 5", at_least=0.85, at_most=1.15, cases=10),
    ],
    model="smollm2-135m",
    count=40,
    minutes=10,
)
