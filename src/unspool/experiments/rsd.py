"""RSD: siblings drawn without replacement are accepted more often than independent ones, at an equal number of nodes.

Two parts. Exact: the probability that one of two or three drafts is accepted, for a draft far from its target and for
a close one, summed over all draws and outcomes. Model: tokens per pass of trees of 6 nodes at temperature 1. Not
tested: time, and trees of other sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from unspool.backends.toy import ToyModel
from unspool.conformance.enumeration import independent, no_replacement, outcomes, trees
from unspool.conformance.pairs import normalised
from unspool.engine.contracts import Drafter, LanguageModel
from unspool.experiments._assistant import IndependentTree, with_draft
from unspool.experiments._drafting import accepted, by_variant, decode_with, gain, table
from unspool.methods.acceptance.lossless import Lossless
from unspool.methods.drafters.draft_model import DraftModel, DraftModelOptions
from unspool.methods.drafters.rsd import RSD, RSDOptions
from unspool.reproduce.experiment import Case, Expect, Experiment, Figure, Row, Summary
from unspool.reproduce.setup import Setup
from unspool.suites.prompts import Prompt

# Target and draft, at a total variation of 0.75 and 0.07.
PAIRS = {
    "far": ((0.142, 0.083, 0.451, 0.134, 0.190), (0.024, 0.833, 0.131, 0.008, 0.004)),
    "close": ((0.238, 0.145, 0.313, 0.239, 0.065), (0.239, 0.186, 0.243, 0.257, 0.075)),
}

CHAIN, SHORT, INDEPENDENT, CONSTANT, BEAM = "chain, 6 nodes", "chain, 2 levels", "independent 2x2", "RSD-C 2x2", "RSD-S"
VARIANTS: dict[str, Callable[[LanguageModel, int], Drafter]] = {
    CHAIN: lambda model, size: DraftModel(DraftModelOptions(6), model, size),
    SHORT: lambda model, size: DraftModel(DraftModelOptions(2), model, size),
    INDEPENDENT: lambda model, size: IndependentTree((2, 2), model, size),
    CONSTANT: lambda model, size: RSD(RSDOptions("constant", branching=(2, 2)), model, size),
    BEAM: lambda model, size: RSD(RSDOptions("beam", num_beams=3, draft_length=2), model, size),
}


def accepted_of(k: int, rows: tuple[tuple[float, ...], ...], replacement: bool) -> float:
    """Exact probability that one of ``k`` drafts is accepted."""
    target, draft = (ToyModel(np.tile(normalised(np.array(row)), (len(row) + 1, 1))) for row in rows)
    siblings = independent if replacement else no_replacement
    return sum(
        weight * probability
        for tree, weight in trees(draft, (0,), ((),) * k, siblings)
        for decision, probability in outcomes(Lossless(), target, (0,), tree)
        if len(decision.path) > 1
    )


def cases(setup: Setup) -> list[Case]:
    """A case is a prompt with all variants; the exact part is one more."""

    def exact() -> list[Row]:
        return [
            {"pair": name, "k": k, "independent": accepted_of(k, p, True), "distinct": accepted_of(k, p, False)}
            for name, p in PAIRS.items()
            for k in (1, 2, 3)
        ]

    def measure(prompt: Prompt) -> list[Row]:
        model, draft, size = with_draft(setup)
        return [
            {"variant": name, **decode_with(model, make(draft, size), prompt, setup.pick(40, 8), 1.0, "lossless")}
            for name, make in VARIANTS.items()
        ]

    return [Case("exact", exact), *(Case(prompt.id, partial(measure, prompt)) for prompt in setup.prompts())]


def summarise(rows: Sequence[Row]) -> Summary:
    """Exact gains, and tokens a pass paired by prompt."""
    by = by_variant([row for row in rows if "variant" in row])
    figures = {
        f"one of {row['k']} accepted, {row['pair']} draft, distinct / independent": Figure(
            row["distinct"] / row["independent"]
        )
        for row in rows
        if row.get("k", 1) > 1
    }
    figures |= {
        "tokens a pass, RSD-S": accepted(by[BEAM]),
        "RSD-C / independent": gain(by[CONSTANT], by[INDEPENDENT]),
        "RSD-S / chain of as many levels": gain(by[BEAM], by[SHORT]),
        "RSD-S / chain of as many nodes": gain(by[BEAM], by[CHAIN]),
    }
    return Summary(figures, [table(by)])


EXPERIMENT = Experiment(
    methods=("rsd",),
    claim="A tree whose siblings are drawn without replacement gives more tokens a pass than independent draws, than a "
    "chain of the same length, and than a chain of as many nodes.",
    control="independent draws, a chain of the same length, a chain of as many nodes",
    test="trees of 6 nodes at temperature 1 under the lossless rule, the model's own int4 weights drafting, functions "
    "of HumanEval; and the exact chance that one of k drafts is accepted",
    cases=cases,
    summarise=summarise,
    expects=[
        Expect("one of 2 accepted, far draft, distinct / independent", at_least=1.5),
        Expect("one of 2 accepted, close draft, distinct / independent", at_least=1),
        Expect("RSD-C / independent", at_least=1, cases=10),
        Expect("RSD-S / chain of as many levels", at_least=1, cases=10),
        Expect("RSD-S / chain of as many nodes", at_least=1, cases=10),
    ],
    model="smollm2-135m",
    count=30,
    minutes=15,
)
