"""EQSPEC: a batch whose rows accept different numbers of drafts gives each row the text that it gets alone.

Batches of four rows of different lengths on the torch backend in float32, whose attention sees one padded block. The
control breaks one invariant at a time: all rows at the position of the longest one; the padding of shorter rows not
masked. Left out: throughput.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np

from unspool.engine.batch import BatchPlan
from unspool.engine.tree import TokenTree
from unspool.experiments._batching import alignment, decode_batch, digests
from unspool.methods.batching.eqspec import EqSpec, EqSpecOptions
from unspool.methods.batching.exspec import ExSpec, ExSpecOptions
from unspool.reproduce.experiment import Case, Expect, Experiment, Row, Summary, Table
from unspool.reproduce.setup import Setup
from unspool.reproduce.statistics import share
from unspool.suites.prompts import Prompt

ROWS = 4
ALONE, OURS, GROUPED, POSITIONS, MASKS = "alone", "eqspec", "exspec", "one position for all rows", "padding not masked"
PLANTED = (POSITIONS, MASKS)


@contextmanager
def fault(model: Any, name: str) -> Iterator[None]:
    """The torch model with an invariant broken."""
    original = model.positions, model.masks

    def positions(trees: Sequence[TokenTree], lengths: Sequence[int]) -> Any:
        return original[0](trees, [max(lengths)] * len(lengths))

    def masks(trees: Sequence[TokenTree], lengths: Sequence[int]) -> Any:
        return original[1](trees, [max(lengths)] * len(lengths))

    broken: dict[str, tuple[str, Callable[..., Any]]] = {
        POSITIONS: ("positions", positions),
        MASKS: ("masks", masks),
    }
    if name not in broken:
        yield
        return
    attribute, function = broken[name]
    with patch.object(model, attribute, function):
        yield


def cases(setup: Setup) -> list[Case]:
    """A case is a batch of prompts with all variants."""

    def measure(prompts: Sequence[Prompt]) -> list[Row]:
        model = setup.language_model(backend="transformers")
        plans: dict[str, BatchPlan] = {
            ALONE: EqSpec(EqSpecOptions(1)),
            OURS: EqSpec(EqSpecOptions(ROWS)),
            GROUPED: ExSpec(ExSpecOptions(ROWS // 2, ROWS)),
            **{name: EqSpec(EqSpecOptions(ROWS)) for name in PLANTED},
        }
        made = []
        for name, plan in plans.items():
            with fault(model.language_model, name):
                steps = decode_batch(model, prompts, plan, setup.pick(24, 4), setup.pick(512, 40))
            made.append({"variant": name, "texts": digests(steps, len(prompts)), **alignment(steps)})
        return made

    prompts = setup.prompts("mixed")
    batches = [prompts[i : i + ROWS] for i in range(0, len(prompts), ROWS)]
    return [Case(batch[0].id, partial(measure, batch)) for batch in batches]


def summarise(rows: Sequence[Row]) -> Summary:
    """Rows whose text is that of the row alone."""
    texts: dict[str, list[str]] = {}
    passes: dict[str, int] = {}
    for row in rows:
        texts.setdefault(row["variant"], []).extend(row["texts"])
        passes[row["variant"]] = passes.get(row["variant"], 0) + row["passes"]
    figures = {
        f"rows as alone, {name}": share(np.equal(found, texts[ALONE]).tolist())
        for name, found in texts.items()
        if name != ALONE
    }
    lines = [
        (name, str(sum(np.equal(found, texts[ALONE]))), str(len(found)), str(passes[name]))
        for name, found in texts.items()
    ]
    return Summary(figures, [Table("", ("variant", "as alone", "rows", "passes"), lines)])


EXPERIMENT = Experiment(
    methods=("eqspec",),
    claim="A batch of speculative rows keeps each row's text if positions, masks and cache entries follow each row's "
    "own length, and loses it if one of them does not.",
    control="the same batch with one position for all rows, and with padding that is not masked",
    test=f"batches of {ROWS} prompts of different lengths, prompt lookup, greedy, float32 on the torch backend",
    cases=cases,
    summarise=summarise,
    expects=[
        Expect(f"rows as alone, {OURS}", at_least=0.85, cases=20),
        Expect(f"rows as alone, {GROUPED}", at_least=0.85, cases=20),
        *(Expect(f"rows as alone, {name}", at_most=0.5, cases=20) for name in PLANTED),
    ],
    model="smollm2-135m",
    count=32,
    minutes=15,
)
