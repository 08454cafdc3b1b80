"""Turning Trash into Treasure: Accelerating Inference of Large Language Models with Token Recycling (2024).

Every pass ranks the whole vocabulary, and plain decoding uses one token of it. Token Recycling keeps the ``k`` best ids
after each token in a matrix. It unrolls the matrix from the newest token along a fixed tree, scores the tree in one
pass, and overwrites the rows of all scored nodes, including rejected ones. Drafts are chosen, not drawn, so the text
stays that of plain decoding, whatever the matrix contains.

Choices where the paper or its code leaves one:
- A token at several nodes is written in breadth-first order, and the last write wins.
- Rows that were never written yield no draft (the paper's code drafts id 0 there); repeated siblings are one node.
- A small budget takes the nodes of the template that are most likely to be accepted, see ``TEMPLATE``.

Left out: filling the matrix from the prompt's logits, because the loop does not keep them; nor does the paper's code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from unspool.engine.method import DRAFTER, Method
from unspool.engine.option import Options, option
from unspool.engine.tree import TokenTree, TreeBuilder
from unspool.errors import UnspoolError
from unspool.methods.drafters.token_recycling.matrix import RecyclingMatrix

if TYPE_CHECKING:
    from unspool.engine.contracts import Context, Step

# The paper's tree: number of children by the path of ranks that leads to a node. All other nodes are leaves.
_CHILDREN = {
    "": 8,
    **{"0": 8, "1": 4, "2": 3, "3": 2, "4": 1, "5": 1, "6": 1, "7": 1},
    **{"00": 8, "01": 3, "02": 2, "03": 1, "04": 1, "05": 1, "06": 1, "07": 1},
    **{"10": 2, "11": 1, "20": 1, "30": 1, "40": 1, "50": 1},
    **{"000": 5, "001": 2, "002": 1, "003": 1, "004": 1, "010": 1, "020": 1, "100": 1, "200": 1, "300": 1},
    **{"0000": 3, "0001": 1, "0002": 1, "0010": 1, "0100": 1, "1000": 1},
    **{"00000": 2, "00010": 1},
}

# How often greedy text continues with the child of this rank once it has reached the parent: rounded from 26 answers of
# 96 tokens by SmolLM2-135M-Instruct (rank 0: 0.31 in layer 1, 0.61 in layer 6). It affects only the template's order.
_RANK_ODDS = (0.45, 0.08, 0.045, 0.036, 0.027, 0.024, 0.012, 0.011)


def _template() -> tuple[tuple[int, ...], ...]:
    paths = [(*map(int, parent), rank) for parent, count in _CHILDREN.items() for rank in range(count)]
    odds = {path: float(np.prod([_RANK_ODDS[rank] for rank in path])) for path in paths}
    return tuple(sorted(paths, key=lambda path: (-odds[path], path)))


TEMPLATE = _template()
"""The paper's 80 draft nodes as paths of child ranks, most likely first; every prefix is a tree.

The probability of a node is the product of its ranks' odds, so it never comes before its parent.
"""

_INDEX = {path: node for node, path in enumerate(TEMPLATE, 1)} | {(): 0}
_LINKS = tuple((_INDEX[path[:-1]], path[-1]) for path in TEMPLATE)  # (parent, rank) of the nodes 1, 2, ...


@dataclass(frozen=True)
class TokenRecyclingOptions(Options):
    """Defaults are the paper's.

    Attributes:
        k: ids kept after each token, 1 to 8 (the template has no higher ranks).
        nodes: most drafted nodes of a tree, 1 to 80, without the root.
    """

    k: int = option(8, least=1, most=len(_RANK_ODDS))
    nodes: int = option(len(TEMPLATE), least=1, most=len(TEMPLATE))


class TokenRecycling:
    """The paper's tree, unrolled from a ``RecyclingMatrix``; the bucket is the rank among siblings.

    Args:
        options: see ``TokenRecyclingOptions``.
        memory: the matrix to read and write; None: one of its own, which lives as long as the drafter.
        vocab_size: width of the model's row of logits, so that a matrix of another model is refused before the first
            token and not at the first ``observe``.

    Raises:
        UnspoolError: if the matrix was made for another ``k`` or learned on another vocabulary.
    """

    name = "token_recycling"

    def __init__(
        self,
        options: TokenRecyclingOptions | None = None,
        memory: RecyclingMatrix | None = None,
        vocab_size: int | None = None,
    ) -> None:
        self.options = options or TokenRecyclingOptions()
        self.memory = memory if memory is not None else RecyclingMatrix(self.options.k)
        if self.memory.k != self.options.k:
            raise UnspoolError(f"the recycling matrix keeps k = {self.memory.k} ids, not {self.options.k}")
        self._root = 0  # of the last draft
        if vocab_size is not None:
            self.memory.fit(vocab_size)

    def start(self, context: Context) -> None:
        """Does nothing: the matrix outlives requests, and the text before the newest token does not matter."""

    def propose(self, context: Context, budget: int) -> TokenTree:
        """The first nodes of the template that the matrix can fill, at most ``min(budget, nodes + 1)``."""
        limit = min(budget, self.options.nodes + 1)
        self._root = context.tokens[-1]
        builder = TreeBuilder(self._root)
        place = {0: 0}  # node of the template -> node of the tree
        rows: dict[int, list[int]] = {}
        for node, (parent, rank) in enumerate(_LINKS, 1):
            if len(builder) >= limit:
                break
            at = place.get(parent)
            if at is None:
                continue
            row = rows.get(at)
            if row is None:
                row = rows[at] = self.memory.row(builder.tokens[at])
            if rank < len(row):
                place[node] = builder.add(at, row[rank], self.name, rank)
        return builder.build()

    def first_ranking(self, k: int) -> Sequence[int] | None:
        """At most ``k`` ids that the target ranked highest after the newest token when it was last scored."""
        return self.memory.row(self._root)[:k] or None

    def observe(self, step: Step) -> None:
        """Overwrite the rows of all scored nodes, accepted or not."""
        order = np.argsort(step.tree.depths, kind="stable")
        ids, _ = step.top_k(self.options.k)
        self.memory.update(np.array(step.tree.tokens)[order], ids[order], step.logits.shape[1])


METHOD = Method(
    kind=DRAFTER,
    guarantee="identical",
    summary="Unrolls a tree from a matrix of the tokens that the model last ranked highest after each token.",
    paper="Turning Trash into Treasure: Accelerating Inference of LLMs with Token Recycling (2024)",
    options=TokenRecyclingOptions,
    build=lambda resources, options: TokenRecycling(
        options, resources.memory("token_recycling", RecyclingMatrix, k=options.k), resources.model.vocab_size
    ),
    memory="the tokens that were ranked highest after each token",
)
