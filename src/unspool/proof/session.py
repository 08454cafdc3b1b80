"""Whether a backend's session fulfils its contract: a token's logits do not depend on how the text was cached.

Plain output is scored one token at a time, and again by trees with the right path between wrong drafts, after texts
that were stored and rewound, on forks and next to them. This finds any cache that keeps a rejected draft, loses or
shifts an entry, confuses siblings or positions, or is stale after a rewind, whatever methods do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from statistics import median

import numpy as np

from unspool.engine.contracts import LanguageModel, Logits
from unspool.engine.tree import TokenTree
from unspool.proof.case import Case
from unspool.proof.passes import one_by_one, prefilled, scored, store
from unspool.proof.result import MethodProof
from unspool.proof.rounding import NoiseMeter

NAME = "session"
"""Name of the row; not a method of the registry."""

_TOKENS = 12  # compared per case and way
_DEPTH = 4  # levels of a tree, root included
_JUNK = 3  # tokens that are stored, then must leave no trace

# Rounding grows through the cache: later passes read what a pass of many nodes stored. Faults change logits by tenths
# at least, rounding by at most this many times the change of a single node.
_GROWTH = 100

Ways = Callable[[LanguageModel, Sequence[int], Sequence[int]], Iterator[Logits]]


def check(meter: NoiseMeter, cases: Sequence[Case]) -> MethodProof:
    """One row: for each way, the largest change of a logit, and the limit that rounding explains.

    The limit follows from the noise of a pass's first node, whose place is the same at any width: a fault of positions,
    masks or cache cannot widen it. Noise that would flip every second choice is itself a fault.

    Args:
        meter: has already measured the cases.
    """
    allowed = min(_GROWTH * max(meter.root, meter.resolution * meter.largest), median(meter.leads))
    changes = {"widths": meter.chain} | dict.fromkeys(_WAYS, 0.0)
    identical = tokens = 0
    for case in cases:
        output = case.token_ids[:_TOKENS]
        rows = [row.copy() for row in one_by_one(meter.model, case.prompt, output)]
        worst = 0.0
        for name, way in _WAYS.items():
            for row, expected in zip(way(meter.model, case.prompt, output), rows, strict=True):
                with np.errstate(invalid="ignore"):
                    change = float(np.where(row == expected, 0, np.abs(row - expected)).max())
                worst = max(worst, change)
                changes[name] = max(changes[name], change)
        identical += worst <= allowed
        tokens += len(output) * len(_WAYS)
    faults = sum(change > allowed for change in changes.values())
    return MethodProof(
        NAME,
        "identical",
        "identity",
        0.0,
        len(cases),
        identical,
        tokens,
        0,
        faults,
        details={**changes, "allowed": allowed},
    )


def _by_trees(model: LanguageModel, prompt: Sequence[int], output: Sequence[int]) -> Iterator[Logits]:
    with prefilled(model, prompt) as session:
        text = [prompt[-1], *output[:-1]]
        at = 0
        while at < len(text):
            levels = min(_DEPTH, session.room, len(text) - at)
            tree, path = _between_wrong_drafts(text[at : at + levels], model.vocab_size)
            logits = scored(model, session, tree, path)
            for node in path:
                yield logits[node]
            at += levels


def _between_wrong_drafts(text: Sequence[int], vocab_size: int) -> tuple[TokenTree, list[int]]:
    """A tree with ``text`` as a path: each token between wrong siblings, which continue with right tokens."""
    tokens, parents, path = [text[0]], [-1], [0]
    for level, token in enumerate(text[1:], 1):
        before, after = ((token + step) % vocab_size for step in (1, -1))
        first = len(tokens)
        tokens += [before, token, after]
        parents += path[-1:] * 3
        path.append(first + 1)
        if level + 1 < len(text):
            tokens += [text[level + 1]] * 2
            parents += [first, first + 2]
    return TokenTree(tuple(tokens), tuple(parents)), path


def _after_rewind(model: LanguageModel, prompt: Sequence[int], output: Sequence[int]) -> Iterator[Logits]:
    with prefilled(model, prompt) as session:
        for token, junk in _with_junk(model, prompt, output):
            length = session.length
            store(model, session, junk[: session.room])
            session.rewind(length)
            yield scored(model, session, TokenTree.chain([token]), [0])[0]


def _on_forks(model: LanguageModel, prompt: Sequence[int], output: Sequence[int]) -> Iterator[Logits]:
    with prefilled(model, prompt) as session:
        for token, _ in _with_junk(model, prompt, output):
            with closing(session.fork()) as twin:
                yield scored(model, twin, TokenTree.chain([token]))[0]
            store(model, session, [token])


def _beside_forks(model: LanguageModel, prompt: Sequence[int], output: Sequence[int]) -> Iterator[Logits]:
    with prefilled(model, prompt) as session:
        for token, junk in _with_junk(model, prompt, output):
            with closing(session.fork()) as twin:
                store(model, twin, junk[: twin.room])
                yield scored(model, session, TokenTree.chain([token]), [0])[0]


def _with_junk(model: LanguageModel, prompt: Sequence[int], output: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """Each scored token, with others to store in its place that stay within the length of the output."""
    for index, token in enumerate((prompt[-1], *output[:-1])):
        yield token, [(token + 1 + i) % model.vocab_size for i in range(min(_JUNK, len(output) - index))]


_WAYS: dict[str, Ways] = {
    "trees": _by_trees,
    "rewind": _after_rewind,
    "fork": _on_forks,
    "beside a fork": _beside_forks,
}
