"""PIE, positional integrity encoding: Let the Code LLM Edit Itself When You Edit the Code (ICLR 2025).

Plain decoding encodes an edited prompt anew from the first changed token on. PIE encodes only the new tokens and keeps
the entries behind them: their values as they are, their keys turned by one more rotation to their new positions.
Several changes made at once are one rotation for each stretch between them, of the entries as they were before all of
them. The last token of the prompt is not cached: decoding scores it anew, on the edited cache.

Models rest most of their attention on the first tokens of a text, whatever they are, and write entries there that are
like no others. So the first four are encoded where they are new or come from further behind, and those that were the
first are encoded again where they are no longer: a few tokens, and only for an edit at the beginning. The paper does
not have that; without it the divergence after an edit at the first token is some thirty times as large.

Guarantee: lossy. What is kept still tells of the old text in every layer above the first, which is harmless where the
edit does not matter for what follows and wrong where it does (a renamed variable). ``hybrid``, which the paper does not
have, encodes again what is likely to depend on the edit. ``recompute`` is exact and needs nothing of the model;
``conflict`` is the paper's other baseline, PIE without the rotation. Edits count in tokens: text is always tokenised as
a whole, and what differs between the old and the new tokens is the edit, so seams need no care.

Left out: quantised caches, whose keys would lose a little with each edit; the caches here are not quantised, and a turn
costs one rounding.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import Literal, cast

from unspool.engine.autoregressive import extend
from unspool.engine.cache_edit import EditableSession
from unspool.engine.contracts import Ability, Session
from unspool.engine.method import EDIT, Example, Method, Needs
from unspool.engine.option import Options, option

Mode = Literal["pie", "hybrid", "recompute", "conflict"]
Refresh = Literal["names", "last"]

Change = tuple[int, int, str]
"""Characters ``start`` to ``stop`` of a text, and what comes instead."""

Origins = list[int | None]
"""For each entry of the new cache the entry of the old one that it is made of; None: its token is encoded."""

FIRST = 4
"""Tokens at the beginning of a text on which attention rests."""

_NAME = re.compile(r"[^\W\d]\w*")


@dataclass(frozen=True)
class PieOptions(Options):
    """How a cache follows edits.

    Attributes:
        mode: ``pie``; ``hybrid``: also encode kept tokens again; ``recompute``: everything behind the first change
            (exact); ``conflict``: as ``pie``, without moving keys to their positions.
        refresh: which kept tokens ``hybrid`` encodes again: ``names``, those of lines that hold a name of a changed
            line, rarest name first, then the last ones; ``last``, the last ones.
        refresh_tokens: how many of them, at least 0.
    """

    mode: Mode = "pie"
    refresh: Refresh = "names"
    refresh_tokens: int = option(128, least=0)


def origins(versions: Sequence[Sequence[int]]) -> Origins:
    """Where the entries of the last version come from: all of its tokens but the last one have one.

    Args:
        versions: ids of the whole text before the changes and after each of them. What a version has in common with the
            one before is their longest common prefix and, of the rest, suffix.
    """
    found: Origins = [*range(len(versions[0]) - 1), None]  # the last token was not cached
    for old, new in pairwise(versions):
        before = _common(old, new)
        behind = _common(old[before:][::-1], new[before:][::-1])
        middle = len(new) - before - behind
        found = [*found[:before], *[None] * middle, *found[len(old) - behind :]]
    return found[:-1]


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def kept(made_of: Origins) -> int:
    """How many leading entries stay where they are."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], enumerate(made_of)))


def renew_first(made_of: Origins) -> Origins:
    """The same, but entries that become or were among the ``FIRST`` are encoded where they move."""
    return [
        None if origin is not None and origin != t and min(t, origin) < FIRST else origin
        for t, origin in enumerate(made_of)
    ]


def rebuild(session: Session, tokens: Sequence[int], made_of: Origins, rotate: bool = True) -> Session:
    """A new session for ``tokens`` but the last one; the old one, which stays, gives what ``made_of`` takes from it."""
    new = session.fork()
    new.rewind(at := kept(made_of))
    while at < len(made_of):
        end, origin = at + 1, made_of[at]
        while end < len(made_of) and made_of[end] == (None if origin is None else origin + end - at):
            end += 1
        if origin is None:
            extend(new, tokens[at:end])
        else:
            cast("EditableSession", new).splice(session, origin, origin + end - at, rotate=rotate)
        at = end
    return new


def exact_length(made_of: Origins, exact: int) -> int:
    """How many leading entries are those of a prefill, if the first ``exact`` of the old cache were."""
    still = min(exact, kept(made_of))
    return still + sum(1 for _ in takewhile(lambda origin: origin is None, made_of[still:]))


def choose(options: PieOptions, old: str, new: str, changes: Sequence[Change], ends: Sequence[int]) -> list[int]:
    """All tokens of the new text in the order in which ``hybrid`` encodes them again."""
    chosen: list[int] = []
    if options.refresh == "names":
        for start, stop in naming(new, changed_names(old, new, changes)):
            chosen += reversed(covering(ends, start, stop))
    return list(dict.fromkeys([*chosen, *reversed(range(len(ends)))]))


def changed_names(old: str, new: str, changes: Sequence[Change]) -> set[str]:
    """Names on the lines that the changes touch, before and after them."""
    names: set[str] = set()
    moved = 0
    for start, stop, text in changes:
        for whole, begin, end in ((old, start, stop), (new, start + moved, start + moved + len(text))):
            line_end = whole.find("\n", end)
            line = whole[whole.rfind("\n", 0, begin) + 1 : len(whole) if line_end < 0 else line_end]
            names.update(_NAME.findall(line))
        moved += len(text) - (stop - start)
    return names


def naming(text: str, names: set[str]) -> list[tuple[int, int]]:
    """Spans of the lines that hold one of the names: those of the rarest name first, of one name the last line first.

    So names that say little because they are everywhere (``self``, ``return``) come last, whatever the language.
    """
    lines: list[tuple[int, int, set[str]]] = []
    at = 0
    for line in text.splitlines(keepends=True):
        lines.append((at, at + len(line), names.intersection(_NAME.findall(line))))
        at += len(line)
    count = Counter(name for _, _, held in lines for name in held)
    ranked = sorted((min(count[name] for name in held), -start, stop) for start, stop, held in lines if held)
    return [(-start, stop) for _, start, stop in ranked]


def covering(ends: Sequence[int], start: int, stop: int) -> range:
    """Tokens that hold characters ``start`` to ``stop``, given where each token ends; at a seam the one before too."""
    return range(bisect_left(ends, start), min(bisect_left(ends, stop) + 1, len(ends)))


METHOD = Method(
    kind=EDIT,
    guarantee="lossy",
    summary="Changes a prompt in its middle and keeps the cache of what follows, moved to its new place.",
    paper="Let the Code LLM Edit Itself When You Edit the Code (2024)",
    options=PieOptions,
    build=lambda _, options: options,
    needs=Needs(abilities=frozenset({Ability.CACHE_EDIT})),
    example=Example(
        'unspool edit -m qwen2.5-coder-0.5b --replace "import os=>import sys" --file unfinished.py',
        """
        import unspool

        model = unspool.load("qwen2.5-coder-0.5b")
        with open("unfinished.py") as file:
            editor = model.edit(file.read())
        print(editor.replace(0, 0, "import json\\n"))
        print(editor.generate(max_new_tokens=32).text)
        """,
    ),
)
