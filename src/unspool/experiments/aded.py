"""ADED: a trigram table that learns from the text and is searched by PUCT is a good drafter.

Variants are trees of 12 nodes: ADED; the same table without learning from the text; an initially empty table; a table
of another kind of corpus; best-first expansion by the product of probabilities instead of the search; and a table with
one token of context instead of two. Not measured: the time of drafting.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unspool.decoding.model import Model
from unspool.engine.contracts import Context
from unspool.experiments import _library
from unspool.experiments._drafting import IDENTICAL, accepted, by_variant, decode_with, gain, identical, table
from unspool.methods import PLAIN
from unspool.methods.drafters.aded import Aded, AdedOptions
from unspool.methods.drafters.aded.search import Draft
from unspool.methods.drafters.aded.table import TrigramTable
from unspool.reproduce.experiment import Case, Expect, Experiment, Row, Summary
from unspool.reproduce.setup import Setup

NODES = 12
LEVELS = 4


class BestFirst(Aded):
    """Expands the table by the product of the chances of a path."""

    def drafts(self, context: Context) -> list[Draft]:
        drafts: list[Draft] = []
        heap: list[tuple[float, tuple[int, ...], float]] = [(-1.0, (), 0.0)]
        while heap and len(drafts) <= self.options.nodes:
            negative, path, value = heapq.heappop(heap)
            drafts.append(Draft(path, -negative, value))
            if len(path) < LEVELS:
                first, second = [*context.tokens[-2:], *path][-2:]
                found = self.memory.successors(first, second)
                total = sum(value for _, value in found)
                for token, value in found:
                    heapq.heappush(heap, (negative * value / total, (*path, token), value))
        return drafts[1:]


class PairTable(TrigramTable):
    """Keyed by one token."""

    @staticmethod
    def pair(first: Any, second: Any) -> Any:
        return second


OURS, FIXED, EMPTY, OTHER, BEST, PAIRS = (
    "aded",
    "no learning",
    "no corpus",
    "other corpus",
    "best first",
    "one token of context",
)
VARIANTS = (PLAIN, OURS, FIXED, EMPTY, OTHER, BEST, PAIRS)


def cases(setup: Setup) -> list[Case]:
    """A case is a variant over all prompts, since its table stays from prompt to prompt."""
    prompts = setup.prompts()
    documents = setup.pick(None, 4)

    @cache
    def library() -> list[NDArray[np.int32]]:
        return _library.encoded(setup.language_model(), _library.read(_library.sources()[:documents]))

    def corpus(model: Model, variant: str) -> TrigramTable:
        made = PairTable() if variant == PAIRS else TrigramTable()
        if variant == OTHER:
            made.count(_library.encoded(model, _library.manual()[:documents]))
        elif variant != EMPTY:
            made.count(library())
        return made

    def measure(variant: str) -> list[Row]:
        model = setup.language_model()
        options = AdedOptions(nodes=NODES, increment=0.0 if variant == FIXED else AdedOptions().increment)
        memory = TrigramTable() if variant == PLAIN else corpus(model, variant)
        kind, size = BestFirst if variant == BEST else Aded, model.language_model.vocab_size
        made = []
        for prompt in prompts:
            drafter = PLAIN if variant == PLAIN else kind(options, memory, size)
            made.append({"variant": variant, **decode_with(model, drafter, prompt, setup.pick(96, 12))})
        return made

    return [Case(variant, partial(measure, variant)) for variant in VARIANTS]


def summarise(rows: Sequence[Row]) -> Summary:
    """Tokens a pass, paired by prompt."""
    by = by_variant(rows)
    figures = {IDENTICAL.figure: identical(by), "tokens a pass": accepted(by[OURS])}
    figures |= {f"aded / {name}": gain(by[OURS], by[name]) for name in VARIANTS[2:]}
    return Summary(figures, [table(by)])


EXPERIMENT = Experiment(
    methods=("aded",),
    claim="A trigram table of a corpus, reinforced by the text as it is written and searched by a tree search, drafts "
    "tokens that the model accepts without training or a second model.",
    control="the table without reinforcement, without a corpus, with a corpus of prose, and expanded best first "
    "instead of searched",
    test=f"trees of {NODES} nodes, greedy, functions of HumanEval; corpus: Python's standard library",
    cases=cases,
    summarise=summarise,
    requires=[IDENTICAL],
    expects=[
        Expect("tokens a pass", at_least=1.3, cases=10),
        Expect(f"aded / {FIXED}", at_least=1, cases=10),
        Expect(f"aded / {EMPTY}", at_least=1, cases=10),
        Expect(f"aded / {OTHER}", at_least=1, cases=10),
        Expect(f"aded / {BEST}", at_least=1, cases=10),
    ],
    count=40,
    minutes=25,
)
