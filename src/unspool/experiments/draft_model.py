"""Speculative decoding: tokens per pass follow from the acceptance rate alone, and a good draft gives many.

By the paper's formula a draft of length g gives (1 - a^(g+1)) / (1 - a) tokens per pass, if every token is accepted
independently with probability a. Here a is measured on drafts of one token and predicts drafts of 3 and 6. The text
must equal plain decoding's; the experiment ``lossless`` tests the distribution. Not measured: time.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from unspool.engine.contracts import Drafter
from unspool.experiments._assistant import RandomChain, with_draft
from unspool.experiments._drafting import IDENTICAL, accepted, by_variant, decode_with, gain, identical, table
from unspool.methods import PLAIN
from unspool.methods.drafters.draft_model import DraftModel, DraftModelOptions
from unspool.reproduce.experiment import Case, Expect, Experiment, Figure, Row, Summary
from unspool.reproduce.setup import Setup
from unspool.reproduce.statistics import of_sums
from unspool.suites.prompts import Prompt

LENGTHS = (1, 3, 6)
RANDOM = "random tokens"


def cases(setup: Setup) -> list[Case]:
    """A case is a prompt with all lengths, at temperature 0 and, drawn, at 1."""

    def measure(prompt: Prompt) -> list[Row]:
        model, draft, size = with_draft(setup)
        length, made = setup.pick(40, 8), []
        for temperature, rule in ((0, None), (1, "lossless")):
            drafters: dict[str, Drafter | str] = {
                PLAIN: PLAIN,
                RANDOM: RandomChain(max(LENGTHS), size),
                **{str(g): DraftModel(DraftModelOptions(g), draft, size) for g in LENGTHS},
            }
            for name, drafter in drafters.items():
                row = decode_with(model, drafter, prompt, length, temperature, rule)
                made.append({"variant": name, "temperature": temperature, **row})
        return made

    return [Case(prompt.id, partial(measure, prompt)) for prompt in setup.prompts()]


def against_formula(longer: Sequence[Row], single: Sequence[Row], length: int) -> Figure:
    """Tokens a pass divided by what the acceptance rate of single drafts predicts."""

    def function(tokens: Any, passes: Any, one_tokens: Any, one_passes: Any) -> Any:
        rate = one_tokens / one_passes - 1
        return tokens / passes / sum(rate**i for i in range(length + 1))

    # Of the last pass, which the end of the text cuts short, nothing is counted.
    counts = [
        [[row["tokens"] - row["last"] for row in rows], [row["passes"] - 1 for row in rows]]
        for rows in (longer, single)
    ]
    return of_sums([column for pair in counts for column in pair], function)


def summarise(rows: Sequence[Row]) -> Summary:
    """Tokens a pass, measured and by the formula; bootstrap over prompts."""
    greedy, drawn = (by_variant([row for row in rows if row["temperature"] == t]) for t in (0, 1))
    longest = str(max(LENGTHS))
    figures = {
        IDENTICAL.figure: identical(greedy),
        "tokens a pass, temperature 1": accepted(drawn[longest]),
        "tokens a pass, temperature 0": accepted(greedy[longest]),
        "draft model / random tokens": gain(drawn[longest], drawn[RANDOM]),
    }
    for by, temperature in ((drawn, 1), (greedy, 0)):
        for g in LENGTHS[1:]:
            figures[f"measured / formula, {g} tokens, temperature {temperature}"] = against_formula(
                by[str(g)], by[str(LENGTHS[0])], g
            )
    return Summary(figures, [table(drawn, "temperature 1"), table(greedy, "temperature 0")])


EXPERIMENT = Experiment(
    methods=("draft_model",),
    claim="A draft model gives (1 - a^(g+1)) / (1 - a) tokens a pass, a being the share of its tokens that the target "
    "accepts and g the length of a draft, and leaves the text as it is.",
    control="random tokens as drafts; acceptance that depends on what was accepted before would break the formula",
    test="drafts of 1, 3 and 6 tokens at temperatures 1 and 0, the model's own int4 weights drafting, functions of "
    "HumanEval; a is counted from drafts of 1 token",
    cases=cases,
    summarise=summarise,
    requires=[IDENTICAL],
    expects=[
        Expect("draft model / random tokens", at_least=1.5, cases=5),
        Expect("measured / formula, 3 tokens, temperature 1", at_least=0.85, at_most=1.15, cases=10),
        Expect("measured / formula, 6 tokens, temperature 1", at_least=0.85, at_most=1.15, cases=10),
    ],
    model="smollm2-135m",
    count=30,
    minutes=15,
)
