"""Suffix drafts: the longest suffix that occurred before, however long, drafts better than the last three tokens.

Variants, each a chain of at most 16 tokens: the suffix automaton; prompt lookup; an automaton of only the last 32
tokens of the text; and a continuation of a random earlier place, which shows the value of copying without a match. Not
tested: text of other requests, and switching to another drafter if matches are short.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from unspool.engine.contracts import Context, Drafter
from unspool.engine.suffix_automaton import SuffixAutomaton
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
from unspool.methods.drafters.suffix import Suffix, SuffixOptions
from unspool.reproduce.experiment import Case, Expect, Experiment, Row, Summary
from unspool.reproduce.setup import Setup
from unspool.suites.prompts import Prompt

LENGTH = 16
KEPT = 32


class Forgetful(Suffix):
    """Knows the last tokens of the text only."""

    def propose(self, context: Context, budget: int) -> TokenTree:
        self._automaton = SuffixAutomaton()
        newest = Context(context.tokens[-KEPT:], 0, context.seed, context.temperature)
        return super().propose(newest, budget)


OURS, LOOKUP, NEWEST, RANDOM = "suffix", "prompt lookup", f"last {KEPT} tokens only", "random place"
VARIANTS = (PLAIN, OURS, LOOKUP, NEWEST, RANDOM)


def cases(setup: Setup) -> list[Case]:
    """A case is a prompt with all variants; nothing is kept from prompt to prompt."""

    def measure(prompt: Prompt) -> list[Row]:
        options = SuffixOptions(num_assistant_tokens=LENGTH)
        drafters: dict[str, Drafter | str] = {
            PLAIN: PLAIN,
            OURS: Suffix(options),
            LOOKUP: f"prompt_lookup:num_assistant_tokens={LENGTH}",
            NEWEST: Forgetful(options),
            RANDOM: RandomCopy(LENGTH, np.random.default_rng(0)),
        }
        model, length = setup.language_model(), setup.pick(96, 12)
        return [{"variant": name, **decode_with(model, drafters[name], prompt, length)} for name in VARIANTS]

    prompts = setup.prompts("mixed,source-edit")
    return [Case(prompt.id, partial(measure, prompt)) for prompt in prompts]


def summarise(rows: Sequence[Row]) -> Summary:
    """Tokens a pass, paired by prompt, of all categories together."""
    by = by_variant(rows)
    figures = {IDENTICAL.figure: identical(by), "tokens a pass": accepted(by[OURS])}
    figures |= {f"suffix / {name}": gain(by[OURS], by[name]) for name in VARIANTS[2:]}
    copied = {name: [row for row in found if "edit" in row["category"]] for name, found in by.items()}
    tables = [table(by, "all"), *([table(copied, "edits")] if copied[OURS] else [])]
    return Summary(figures, tables)


EXPERIMENT = Experiment(
    methods=("suffix",),
    claim="A suffix automaton, which finds the longest match of any length in the text so far, drafts more accepted "
    "tokens than lookups of short n-grams.",
    control="prompt lookup, an automaton of the last tokens only, copies from a random place",
    test=f"chains of at most {LENGTH} tokens, greedy; unspool's mixed prompts and edits of library code",
    cases=cases,
    summarise=summarise,
    requires=[IDENTICAL],
    expects=[
        Expect(f"suffix / {RANDOM}", at_least=1.2, cases=10),
        Expect(f"suffix / {NEWEST}", at_least=1.05, cases=10),
        Expect(f"suffix / {LOOKUP}", at_least=1, cases=10),
    ],
    count=35,
    minutes=15,
)
