"""Accepts drafted tokens as long as they are those that plain decoding takes.

Papers: "SpecInfer: Accelerating Large Language Model Serving with Tree-based Speculative Inference and Verification"
(2023) for greedy trees; the same walk with randomness keyed by position makes sampling reproducible.

What it changes about plain decoding: one pass yields several of plain decoding's tokens. Guarantee: identical text,
greedy and sampled alike, for any tree, however it was drafted. The target determines which token plain decoding takes:
the argmax, or the draw with the noise of the position. So one walk is both the greedy and the same-noise rule.
Left out: nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from unspool.engine.contracts import Decision, Target


class ExactMatch:
    """The greedy rule and the same-noise rule; an ``AcceptanceRule``."""

    uses_draft_probs = False

    def decide(self, target: Target, rng: Callable[[], np.random.Generator]) -> Decision:
        """Descend while a child has the token that plain decoding takes; ``rng`` is not used."""
        path = [0]
        while True:
            child, token = choose_child(target, path[-1])
            if child is None:
                return Decision(tuple(path), token)
            path.append(child)


def choose_child(target: Target, node: int) -> tuple[int | None, int]:
    """The token that plain decoding takes after ``node``, and the child with that token; None if no child has it."""
    tree, token = target.tree, target.choose(node)
    # Siblings with equal tokens have equal contexts, so any of them will do: take the first.
    return next((child for child in tree.children[node] if tree.tokens[child] == token), None), token
