"""PIE, positional integrity encoding: Let the Code LLM Edit Itself When You Edit the Code (ICLR 2025).

Plain decoding encodes an edited prompt again from the first changed token on. PIE encodes only the new tokens and keeps
the entries after them: their values unchanged, their keys rotated once more to their new positions. Several changes
made at once cost one rotation for each stretch between them, of the entries as they were before all changes. The last
token of the prompt is not cached: decoding scores it again, on the edited cache.

Models place most of their attention on the first tokens of a text, whatever they are (attention sinks), and the entries
there are unlike all others. So the first four are encoded if they are new or come from further back, and those that
were among the first are encoded again if they no longer are: a few tokens, and only for an edit at the beginning. The
paper does not do this; without it the divergence after an edit at the first token is about thirty times as large.

Guarantee: lossy. Kept entries still depend on the old text in every layer above the first. This is harmless if the edit
does not matter for what follows and wrong if it does (a renamed variable). ``hybrid``, which the paper does not have,
encodes again what is likely to depend on the edit. ``recompute`` is exact and requires nothing of the model;
``conflict`` is the paper's other baseline, PIE without the rotation. Edits are found in tokens: the text is always
tokenised as a whole, and the edit is what differs between the old and the new tokens, so seams need no care.

Left out: quantised caches, whose keys would lose a little with each edit; the caches here are not quantised, and a
rotation costs one rounding.
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
"""Characters ``start`` to ``stop`` of a text, and their replacement."""

Origins = list[int | None]
"""For each entry of the new cache, the entry of the old one that it is made from; None: its token is encoded."""

FIRST = 4
"""Number of tokens at the beginning of a text that act as attention sinks."""

_NAME = re.compile(r"[^\W\d]\w*")


@dataclass(frozen=True)
class PieOptions(Options):
    """How a cache follows edits.

    Attributes:
        mode: ``pie``; ``hybrid``: also encode kept tokens again; ``recompute``: everything after the first change
            (exact); ``conflict``: as ``pie``, without moving keys to their positions.
        refresh: which kept tokens ``hybrid`` encodes again: ``names``, those on lines that contain a name of a changed
            line, rarest name first, then the last ones; ``last``, the last ones.
        refresh_tokens: number of these tokens, at least 0.
    """

    mode: Mode = "pie"
    refresh: Refresh = "names"
    refresh_tokens: int = option(128, least=0)


def origins(versions: Sequence[Sequence[int]]) -> Origins:
    """Where the entries of the last version come from; its last token has none.

    Args:
        versions: ids of the whole text before the changes and after each of them. Two successive versions share their
            longest common prefix and, of the rest, their longest common suffix.
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
    """Number of leading entries that stay where they are."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], enumerate(made_of)))


def renew_first(made_of: Origins) -> Origins:
    """The same, except that entries that move to or from the ``FIRST`` ones are encoded."""
    return [
        None if origin is not None and origin != t and min(t, origin) < FIRST else origin
        for t, origin in enumerate(made_of)
    ]


def rebuild(session: Session, tokens: Sequence[int], made_of: Origins, rotate: bool = True) -> Session:
    """A new session for all of ``tokens`` but the last; entries are copied from the old one, which stays unchanged."""
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
    """Number of leading entries that equal a prefill's, if the first ``exact`` of the old cache do."""
    still = min(exact, kept(made_of))
    return still + sum(1 for _ in takewhile(lambda origin: origin is None, made_of[still:]))


def choose(options: PieOptions, old: str, new: str, changes: Sequence[Change], ends: Sequence[int]) -> list[int]:
    """All tokens of the new text, in the order in which ``hybrid`` encodes them again."""
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
    """Spans of the lines that contain one of the names: rarest name first, and for one name the last line first.

    So names that say little because they are everywhere (``self``, ``return``) come last, in any language.
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
    """Tokens that contain characters ``start`` to ``stop``, given each token's end; at a seam also the one before."""
    return range(bisect_left(ends, start), min(bisect_left(ends, stop) + 1, len(ends)))


METHOD = Method(
    kind=EDIT,
    guarantee="lossy",
    summary="Edits the middle of a prompt and keeps the cache of what follows, moved to its new positions.",
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
