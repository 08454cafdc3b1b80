"""Prompt lookup: if the answer repeats its prompt, many copied tokens are accepted per pass.

The same drafter on edits of code, whose answers are nearly all copies, and on questions without a text to copy from.
Controls: continuations of a random earlier place, and lookup in the prompt only, without the output so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from unspool import suites
from unspool.engine.contracts import Context, Drafter
from unspool.engine.tree import TokenTree
from unspool.experiments._drafting import (
    IDENTICAL,
    RandomCopy,
    accepted,
    by_variant,
    decode_with,
    gain,
    identical,
    table,
)
from unspool.methods import PLAIN
from unspool.methods.drafters.prompt_lookup import PromptLookup, PromptLookupOptions
from unspool.reproduce.experiment import Case, Expect, Experiment, Row, Summary
from unspool.reproduce.setup import Setup
from unspool.suites.prompts import Prompt

EDITS, QUESTIONS = "edits", "questions"


class PromptAlone(PromptLookup):
    """Does not learn what is written after the prompt."""

    def propose(self, context: Context, budget: int) -> TokenTree:
        self._indexed = len(context.tokens)
        return super().propose(context, budget)


OURS, ALONE, RANDOM = "prompt lookup", "prompt alone", "random place"
VARIANTS = (PLAIN, OURS, ALONE, RANDOM)


def cases(setup: Setup) -> list[Case]:
    """A case is a prompt with all variants: half of them edits, half of them questions."""
    edits = suites.load("source-edit").prompts
    questions = [prompt for prompt in suites.load("mixed").prompts if prompt.category in ("chat", "arithmetic")]
    half = max(1, setup.count // 2)

    def measure(prompt: Prompt, kind: str) -> list[Row]:
        options = PromptLookupOptions()
        drafters: dict[str, Drafter | str] = {
            PLAIN: PLAIN,
            OURS: PromptLookup(options),
            ALONE: PromptAlone(options),
            RANDOM: RandomCopy(options.num_assistant_tokens, np.random.default_rng(0)),
        }
        model, length = setup.language_model(), setup.pick(96, 12)
        return [
            {"variant": name, "kind": kind, **decode_with(model, drafters[name], prompt, length)} for name in VARIANTS
        ]

    chosen = [*((prompt, EDITS) for prompt in edits[:half]), *((prompt, QUESTIONS) for prompt in questions[:half])]
    return [Case(prompt.id, partial(measure, prompt, kind)) for prompt, kind in chosen]


def summarise(rows: Sequence[Row]) -> Summary:
    """Tokens a pass, paired by prompt."""
    edits, questions = (by_variant([row for row in rows if row["kind"] == kind]) for kind in (EDITS, QUESTIONS))
    figures = {
        IDENTICAL.figure: identical(by_variant(rows)),
        "tokens a pass, edits": accepted(edits[OURS]),
        "tokens a pass, questions": accepted(questions[OURS]),
        "lookup / random place, edits": gain(edits[OURS], edits[RANDOM]),
        "lookup / prompt alone, edits": gain(edits[OURS], edits[ALONE]),
        "lookup / random place, questions": gain(questions[OURS], questions[RANDOM]),
    }
    return Summary(figures, [table(edits, EDITS), table(questions, QUESTIONS)])


EXPERIMENT = Experiment(
    methods=("prompt_lookup",),
    claim="Looking up the last n-gram in the prompt gives 2 to 4 times as many tokens a pass where the answer repeats "
    "its prompt, without a second model, and leaves the text as it is.",
    control="copies from a random place; questions, whose prompt holds nothing to copy",
    test="greedy; edits of library code and questions, half of the prompts each",
    cases=cases,
    summarise=summarise,
    requires=[IDENTICAL],
    expects=[
        Expect("tokens a pass, edits", at_least=2, cases=10),
        Expect("lookup / random place, edits", at_least=1.5, cases=10),
    ],
    count=40,
    minutes=10,
)
