"""The trees that STAND drafts along, and how they are learned (see ``stand``)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Protocol

from unspool.methods.drafters.stand.memory import KEPT

Path = tuple[int, ...]
"""Position of a node in a template: sibling ranks of its ancestors, outermost first, and its own."""


class Scored(Protocol):
    """The part of a pass that templates are learned from; a ``StepEvent`` is one."""

    @property
    def parents(self) -> tuple[int, ...]: ...

    @property
    def accepted(self) -> tuple[int, ...]: ...


def learn_template(passes: Iterable[Scored], size: int = 80) -> tuple[Path, ...]:
    """The positions that were accepted most often, most often first; every prefix is a tree.

    A position counts at least as often as its later siblings, since siblings are drawn in order.

    Args:
        passes: with a tree that is much larger than ``size``, such as ``broad_template()``.
        size: nodes of the template.
    """
    counts: Counter[Path] = Counter()
    for one in passes:
        position: Path = ()
        for parent, node in zip(one.accepted, one.accepted[1:], strict=False):
            position = (*position, one.parents[:node].count(parent))
            counts[position] += 1
    for position in sorted(counts, key=lambda path: (len(path), path), reverse=True):
        if position[-1]:
            before = (*position[:-1], position[-1] - 1)
            counts[before] = max(counts[before], counts[position])
    return tuple(sorted(counts, key=lambda path: (-counts[path], len(path), path))[:size])


def broad_template(size: int = 625, depth: int = 20) -> tuple[Path, ...]:
    """A tree of the paper's size to learn a template with; which 625 nodes the paper took is not public.

    Most likely first; the first child is right with probability 0.75 and the r-th other one with
    0.15 / (r + 1) ** 1.5.
    """
    odds = [0.75, *(0.15 / rank**1.5 for rank in range(1, KEPT))]
    reached: list[tuple[float, Path]] = [(1.0, ())]
    nodes: list[tuple[float, Path]] = []
    for _ in range(depth):
        below = [(chance * odds[rank], (*path, rank)) for chance, path in reached for rank in range(KEPT)]
        below.sort(key=lambda node: (-node[0], node[1]))
        reached = below[:size]
        nodes += reached
    nodes.sort(key=lambda node: (-node[0], len(node[1]), node[1]))
    return tuple(path for _, path in nodes[:size])


_LEARNED = (
    "0 00 1 000 0000 2 3 10 01 00000 4 000000 100 0000000 5 02 001 00000000 6 7 20 1000 30 00001 000000000 11 40 "
    "002 8 010 200 10000 100000 1000000 10000000 9 300 0001 0000000000 03 04 21 60 003 004 005 006 400 600 0010 "
    "100000000 00000000000 05 41 70 011 101 102 110 210 0020 0060 1010 2000 2100 3000 4000 00002 00100 20000 "
    "40000 200000 1000000000 06 12 22 31 80 007 008"
)

TEMPLATE: tuple[Path, ...] = tuple(tuple(map(int, path)) for path in _LEARNED.split())
"""80 draft nodes, most often accepted first.

Learned from 51 answers of up to 96 tokens by SmolLM2-135M-Instruct, 13 of them greedy, the others at temperature 0.7,
to the questions 81, 91, ..., 161, 241, 321, 401 and 481 of Spec-Bench, one per category; evaluate on other questions.
``learn_template`` learns another one from recorded passes of ``broad_template``.
"""
