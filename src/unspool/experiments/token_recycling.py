"""Token recycling: candidates that a model scored anyway are good drafts, and the matrix learns across prompts.

Variants: the paper's method, the same learning from accepted nodes only, and a matrix of random rows that never learns,
each with one matrix for all prompts, and one that starts empty at every prompt. Not measured: the cost of passes, which
``unspool bench --methods token_recycling:nodes=4,token_recycling:nodes=8,...`` measures.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from unspool.engine.contracts import Step
from unspool.experiments._drafting import IDENTICAL, accepted, by_variant, decode_with, gain, identical, table
from unspool.methods import PLAIN
from unspool.methods.drafters.token_recycling import TokenRecycling, TokenRecyclingOptions
from unspool.methods.drafters.token_recycling.matrix import RecyclingMatrix
from unspool.reproduce.experiment import Case, Expect, Experiment, Row, Summary
from unspool.reproduce.setup import Setup


class AcceptedOnly(TokenRecycling):
    """Learns from accepted nodes alone, not from all that were scored."""

    def observe(self, step: Step) -> None:
        kept = list(step.decision.path)
        ids, _ = step.top_k(self.options.k)
        self.memory.update(np.array(step.tree.tokens)[kept], ids[kept], step.logits.shape[1])


class Frozen(TokenRecycling):
    """Learns nothing."""

    def observe(self, step: Step) -> None: ...


OURS, EMPTIED, ACCEPTED, RANDOM = "recycled", "emptied at each prompt", "accepted only", "random matrix"
VARIANTS = (PLAIN, OURS, EMPTIED, ACCEPTED, RANDOM)


def cases(setup: Setup) -> list[Case]:
    """A case is a variant over all prompts, since its matrix stays from prompt to prompt."""
    prompts = setup.prompts()

    def measure(variant: str) -> list[Row]:
        model = setup.language_model()
        size, options = model.language_model.vocab_size, TokenRecyclingOptions(nodes=8)
        matrix = RecyclingMatrix()
        if variant == RANDOM:
            rows = np.random.default_rng(0).integers(0, size, (size, options.k))
            matrix.update(np.arange(size), rows, size)
        kind = {ACCEPTED: AcceptedOnly, RANDOM: Frozen}.get(variant, TokenRecycling)
        made = []
        for prompt in prompts:
            if variant == EMPTIED:
                matrix = RecyclingMatrix()
            drafter = PLAIN if variant == PLAIN else kind(options, matrix, size)
            made.append({"variant": variant, **decode_with(model, drafter, prompt, setup.pick(256, 16))})
        return made

    return [Case(variant, partial(measure, variant)) for variant in VARIANTS]


def summarise(rows: Sequence[Row]) -> Summary:
    """Tokens a pass, paired by prompt; of the emptied matrix over the second half of the prompts."""
    by = by_variant(rows)
    half = len(by[PLAIN]) // 2
    figures = {
        IDENTICAL.figure: identical(by),
        "tokens a pass": accepted(by[OURS]),
        "recycled / random matrix": gain(by[OURS], by[RANDOM]),
        "recycled / accepted only": gain(by[OURS], by[ACCEPTED]),
        "kept / emptied matrix": gain(by[OURS][half:], by[EMPTIED][half:]),
    }
    return Summary(figures, [table(by)])


EXPERIMENT = Experiment(
    methods=("token_recycling",),
    claim="Candidate tokens that a pass scored and rejected are worth keeping: recycled as drafts they raise the "
    "tokens accepted per pass, and the matrix that they fill serves later prompts.",
    control="a matrix of random rows that never learns; a matrix that learns from accepted tokens only; a matrix that "
    "is emptied before each prompt",
    test="trees of 8 nodes, greedy, functions of HumanEval",
    cases=cases,
    summarise=summarise,
    requires=[IDENTICAL],
    expects=[
        Expect("recycled / random matrix", at_least=1.3),
        Expect("recycled / accepted only", at_least=1),
        Expect("kept / emptied matrix", at_least=1),
    ],
    count=40,
    minutes=25,
)
