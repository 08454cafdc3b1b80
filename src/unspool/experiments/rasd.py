"""RASD: retrieval and a drafter in one tree are better than either, and pruning by the drafter loses no acceptance.

Prompts and datastore come from Python's standard library, by rule. Files that prompts are taken from are not in the
datastore. Three kinds of prompts: rename a parameter of a function of the prompt (much is copied from the prompt);
continue a file after its first lines (some is in other files); what a module is for (neither). All trees have at most
12 nodes. The drafter is token recycling, whose memory stays from prompt to prompt. Left out: time.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

import numpy as np

from unspool.engine.contracts import Context, Drafter, Step
from unspool.engine.tree import TokenTree
from unspool.experiments import _library
from unspool.experiments._drafting import IDENTICAL, accepted, by_variant, decode_with, gain, identical, table
from unspool.methods import PLAIN
from unspool.methods.drafters._datastore import Datastore
from unspool.methods.drafters.plain import Plain
from unspool.methods.drafters.rasd import RASD, RASDOptions
from unspool.methods.drafters.token_recycling import TokenRecycling, TokenRecyclingOptions
from unspool.methods.drafters.token_recycling.matrix import RecyclingMatrix
from unspool.reproduce.experiment import Case, Expect, Experiment, Row, Summary
from unspool.reproduce.setup import Setup
from unspool.suites.prompts import Prompt

NODES = 12
LONG = 5  # tokens of a match that either-or routing takes retrieval for, as SAM-Decoding
CONTEXT_LINES = 60
EDIT, CONTINUE, QUESTION = "edit", "continue", "question"


class EitherOr:
    """Retrieval where the match is long, else the drafter."""

    name = "either"

    def __init__(self, retrieval: RASD, drafter: Drafter) -> None:
        self._parts = (retrieval, drafter)

    def start(self, context: Context) -> None:
        for part in self._parts:
            part.start(context)

    def propose(self, context: Context, budget: int) -> TokenTree:
        retrieval, drafter = self._parts
        tree = retrieval.propose(context, budget)
        return tree if max(tree.buckets) >= LONG else drafter.propose(context, budget)

    def observe(self, step: Step) -> None:
        for part in self._parts:
            part.observe(step)


OURS, DRAFTER, RETRIEVAL, UNION, EITHER = "rasd", "drafter alone", "retrieval alone", "union, no pruning", "either"
VARIANTS = (PLAIN, OURS, DRAFTER, RETRIEVAL, UNION, EITHER)


def arm(variant: str, store: Callable[[], Datastore], size: int) -> Callable[[], Drafter | str]:
    """What makes the drafter of each prompt; its matrix is one for all."""
    matrix = RecyclingMatrix()

    def drafter(nodes: int = NODES) -> TokenRecycling:
        return TokenRecycling(TokenRecyclingOptions(nodes=nodes), matrix, size)

    def retrieval() -> RASD:
        return RASD(RASDOptions(nodes=NODES, retrieved_nodes=NODES), Plain(), store())

    def fused(prune_top_k: int) -> RASD:
        options = RASDOptions(nodes=NODES, retrieved_nodes=NODES // 2, prune_top_k=prune_top_k)
        return RASD(options, drafter(), store())

    return {
        PLAIN: lambda: PLAIN,
        OURS: lambda: fused(RASDOptions().prune_top_k),
        DRAFTER: drafter,
        RETRIEVAL: retrieval,
        UNION: lambda: fused(0),
        EITHER: lambda: EitherOr(retrieval(), drafter()),
    }[variant]  # type: ignore[return-value]


def prompts_of(files: Sequence[Path], count: int) -> tuple[list[Prompt], set[Path]]:
    """At most ``count`` prompts of each kind from files drawn with seed 0, and those files."""
    made: list[Prompt] = []
    used: set[Path] = set()
    for i in np.random.default_rng(0).permutation(len(files)):
        file = files[i]
        source = file.read_text("utf-8")
        lines = source.splitlines(keepends=True)
        if len(lines) < 4 * CONTEXT_LINES or file.stem.startswith("_") or not (edit := renaming(source)):
            continue
        used.add(file)
        question = f"What is Python's module `{file.stem}` for? Explain it to a beginner in a few sentences."
        for kind, text in ((EDIT, edit), (CONTINUE, "".join(lines[:CONTEXT_LINES])), (QUESTION, question)):
            made.append(Prompt(f"{file.stem}-{kind}", kind, text))
        if len(used) == count:
            break
    return made, used


def renaming(source: str) -> str | None:
    """A request to rename the last parameter of the first function of 10 to 25 lines."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.end_lineno and 10 <= node.end_lineno - node.lineno < 25:
            names = [argument.arg for argument in node.args.args if argument.arg != "self"]
            text = ast.get_source_segment(source, node)
            if names and text:
                return (
                    f"Rename the parameter `{names[-1]}` to `new_{names[-1]}` in this function. Answer with the whole "
                    f"function.\n\n```python\n{text}\n```"
                )
    return None


def cases(setup: Setup) -> list[Case]:
    """A case is a variant over all prompts."""
    files = _library.sources()
    prompts, used = prompts_of(files, setup.pick(setup.count, 1))

    @cache
    def store() -> Datastore:
        corpus = [file for file in files if file not in used][: setup.pick(None, 4)]
        encoded = _library.encoded(setup.language_model(), _library.read(corpus))
        return Datastore.from_sequences(ids.tolist() for ids in encoded)

    def measure(variant: str) -> list[Row]:
        model, made = setup.language_model(), []
        make = arm(variant, store, model.language_model.vocab_size)
        for prompt in prompts:
            drafter, chat = make(), False if prompt.category == CONTINUE else None
            row = decode_with(model, drafter, prompt, setup.pick(64, 8), chat=chat)
            if isinstance(drafter, RASD):
                right = [(branch.pruned, n) for branch, n in drafter.branches.items() if branch.right]
                row["right"], row["right, pruned"] = sum(n for _, n in right), sum(n for pruned, n in right if pruned)
            made.append({"variant": variant, **row})
        return made

    return [Case(variant, partial(measure, variant)) for variant in VARIANTS]


def summarise(rows: Sequence[Row]) -> Summary:
    """Tokens a pass, paired by prompt, of all kinds together; a table for each kind."""
    by = by_variant(rows)
    figures = {IDENTICAL.figure: identical(by), "tokens a pass": accepted(by[OURS])}
    figures |= {f"rasd / {name}": gain(by[OURS], by[name]) for name in VARIANTS[2:]}
    kinds = dict.fromkeys(row["category"] for row in rows)
    tables = [table({n: [r for r in found if r["category"] == k] for n, found in by.items()}, k) for k in kinds]
    return Summary(figures, tables)


EXPERIMENT = Experiment(
    methods=("rasd",),
    claim="A drafter's tree fused with retrieved continuations, those that the drafter finds unlikely pruned, gives "
    "more tokens a pass than the drafter or retrieval alone.",
    control="the drafter alone, retrieval alone, the union without pruning, either by the length of the match; all of "
    "as many nodes",
    test=f"trees of {NODES} nodes over token recycling, greedy; prompts to edit, to continue and to explain Python's "
    "standard library, whose other files are the datastore",
    cases=cases,
    summarise=summarise,
    requires=[IDENTICAL],
    expects=[
        Expect(f"rasd / {DRAFTER}", at_least=1, cases=10),
        Expect(f"rasd / {RETRIEVAL}", at_least=1, cases=10),
        Expect(f"rasd / {UNION}", at_least=1, cases=10),
    ],
    count=8,
    minutes=25,
)
