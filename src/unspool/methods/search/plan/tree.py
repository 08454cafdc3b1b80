"""The tree of PG-TD: prefixes as nodes, tokens as edges, and the rule that walks down."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from unspool.engine.search import Output


@dataclass
class Edge:
    """An action: one token after a node.

    Attributes:
        token: the token.
        prior: P(a|s), softmax over the log-probabilities of the node's edges.
        logprob: under the model.
        count: n, returns seen.
        value: Q, the largest of them; 0 before the first.
        child: the node after it, once it is expanded.
    """

    token: int
    prior: float
    logprob: float
    count: int = 0
    value: float = 0.0
    child: Node | None = None


class Node:
    """A prefix.

    Args:
        output: its tokens after the prompt.
        logprob: their log-probability.
        alternatives: (token, log-probability) of its edges, most likely first; without any the node is terminal.

    Attributes:
        visits: N, starts at 1.
        exhausted: whether nothing below it is left to find; true of a terminal node.
    """

    def __init__(self, output: Output, logprob: float, alternatives: Sequence[tuple[int, float]]) -> None:
        self.output = output
        self.logprob = logprob
        self.visits = 1
        weights = [math.exp(value - alternatives[0][1]) for _, value in alternatives]
        self.edges = [
            Edge(token, weight / sum(weights), value)
            for (token, value), weight in zip(alternatives, weights, strict=True)
        ]
        self.exhausted = not self.edges


Path = list[tuple[Node, Edge]]


def select(root: Node, c: float, c_base: float) -> Path:
    """Walk from the root to an edge without a child, at each node along the edge of the largest P-UCB.

    ``Q + beta(s) P sqrt(ln N(s)) / (1 + n)`` with ``beta(s) = ln((N(s) + c_base + 1) / c_base) + c``; the more likely
    token wins a tie. Edges below which nothing is left are skipped, so the root must not be exhausted.
    """
    path: Path = []
    node: Node | None = root
    while node is not None:
        beta = math.log((node.visits + c_base + 1) / c_base) + c
        spread = beta * math.sqrt(math.log(node.visits))
        edge = max(
            (edge for edge in node.edges if edge.child is None or not edge.child.exhausted),
            key=lambda edge: edge.value + spread * edge.prior / (1 + edge.count),
        )
        path.append((node, edge))
        node = edge.child
    return path


def back_up(path: Path, child: Node, reward: float, gamma: float) -> None:
    """Expand ``child`` at the end of the path and back up its return to the root.

    Args:
        reward: of the program that the child's prefix was completed to. A terminal node's reward belongs to the step
            into it, so it is not discounted there.
    """
    path[-1][1].child = child
    child.visits += 1
    value = gamma * reward if child.edges else reward
    for node, edge in reversed(path):
        edge.count += 1
        edge.value = max(edge.value, value)
        node.visits += 1
        node.exhausted = all(edge.child is not None and edge.child.exhausted for edge in node.edges)
        value *= gamma
