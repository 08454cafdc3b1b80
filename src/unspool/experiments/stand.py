"""STAND: samples of one problem help each other, and sampled drafts are accepted more often than the most likely ones.

Several samples of each prompt share a memory; the next prompt begins with an empty one. Variants: STAND and Token
Recycling under the same-noise rule, whose texts are plain decoding's; STAND under the lossless rule of the paper; and
the same memory and tree with the most likely tokens as drafts. Not tested: throughput, and the paper's learned tree,
which ``methods.drafters.stand.template`` builds.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from unspool.decoding.model import Model
from unspool.engine.contracts import Context, Drafter
from unspool.engine.tree import TokenTree
from unspool.experiments._drafting import IDENTICAL, accepted, by_variant, decode_with, gain, table
from unspool.methods import PLAIN
from unspool.methods.drafters.stand import Stand, StandOptions
from unspool.methods.drafters.stand.memory import NGramMemory
from unspool.methods.drafters.token_recycling import TokenRecycling, TokenRecyclingOptions
from unspool.methods.drafters.token_recycling.matrix import RecyclingMatrix
from unspool.reproduce.experiment import Case, Expect, Experiment, Figure, Row, Summary
from unspool.reproduce.setup import Setup
from unspool.suites.prompts import Prompt

NODES = 12
TEMPERATURE = 0.7
SAME_NOISE, LOSSLESS = "same_noise", "lossless"


class Likeliest(Stand):
    """Drafts by rank, as at temperature 0."""

    def propose(self, context: Context, budget: int) -> TokenTree:
        greedy = Context(context.tokens, context.prompt_length, context.seed, 0.0)
        return super().propose(greedy, budget)


OURS, RECYCLING, DRAWN, RANKED = "stand", "token recycling", "stand, drawn", "stand, likeliest"
RULES = {PLAIN: SAME_NOISE, OURS: SAME_NOISE, RECYCLING: SAME_NOISE, DRAWN: LOSSLESS, RANKED: LOSSLESS}


def drafters(model: Model, variant: str) -> Drafter | str:
    """A drafter with an empty memory, which it keeps from sample to sample."""
    if variant == PLAIN:
        return PLAIN
    if variant == RECYCLING:
        return TokenRecycling(TokenRecyclingOptions(nodes=NODES), RecyclingMatrix(), model.language_model.vocab_size)
    kind = Likeliest if variant == RANKED else Stand
    return kind(StandOptions(nodes=NODES), NGramMemory(), model.language_model.vocab_size)


def cases(setup: Setup) -> list[Case]:
    """A case is a prompt with all samples of all variants."""

    def measure(prompt: Prompt) -> list[Row]:
        model, made = setup.language_model(), []
        for variant, rule in RULES.items():
            drafter = drafters(model, variant)
            for sample in range(1, setup.pick(8, 2) + 1):
                decoded = decode_with(model, drafter, prompt, setup.pick(64, 12), TEMPERATURE, rule, sample)
                made.append({"variant": variant, "sample": sample, **decoded})
        return made

    return [Case(prompt.id, partial(measure, prompt)) for prompt in setup.prompts()]


def of_prompts(rows: Sequence[Row]) -> list[Row]:
    """One row a prompt, the sums of its samples: they share a memory, so only prompts are independent."""
    found: dict[str, Row] = {}
    for row in rows:
        of = found.setdefault(row["prompt"], {"prompt": row["prompt"], "tokens": 0, "passes": 0, "nodes": 0})
        for name in ("tokens", "passes", "nodes"):
            of[name] += row[name]
    return list(found.values())


def growth(rows: Sequence[Row]) -> Figure:
    """Tokens a pass in the last half of the samples of a prompt divided by that in the first."""
    half = max(row["sample"] for row in rows) // 2
    late, early = ([row for row in rows if (row["sample"] > half) == last] for last in (True, False))
    return gain(of_prompts(late), of_prompts(early))


def summarise(rows: Sequence[Row]) -> Summary:
    """Tokens a pass, paired by prompt."""
    by = by_variant(rows)
    sums = {name: of_prompts(found) for name, found in by.items()}
    plain = [row["digest"] for row in by[PLAIN]]
    same = [ours["digest"] == text for name in (OURS, RECYCLING) for ours, text in zip(by[name], plain, strict=True)]
    figures = {
        IDENTICAL.figure: Figure(sum(same) / len(same), count=len(same)),
        "tokens a pass": accepted(sums[OURS]),
        "late / early samples": growth(by[OURS]),
        "late / early samples, token recycling": growth(by[RECYCLING]),
        "stand / token recycling": gain(sums[OURS], sums[RECYCLING]),
        "drawn / likeliest": gain(sums[DRAWN], sums[RANKED]),
    }
    return Summary(figures, [table(sums)])


EXPERIMENT = Experiment(
    methods=("stand",),
    claim="Mean distributions after n-grams, shared by the samples of one problem, draft better with every sample, and "
    "drafts drawn from them are accepted more often than their likeliest tokens.",
    control="token recycling, which overwrites what it knows; the same memory drafted by rank",
    test=f"8 samples a prompt at temperature {TEMPERATURE}, trees of {NODES} nodes, functions of HumanEval",
    cases=cases,
    summarise=summarise,
    requires=[IDENTICAL],
    expects=[
        Expect("late / early samples", at_least=1.05, cases=10),
        Expect("stand / token recycling", at_least=1, cases=10),
        Expect("drawn / likeliest", at_least=1, cases=10),
    ],
    count=10,
    minutes=25,
)
