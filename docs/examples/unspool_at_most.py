"""An example of a third-party acceptance rule (no paper): plain decoding's tokens, a limited number of them a pass.

Changes about plain decoding: several of its tokens leave one pass. Guarantee: identical. Left out: drawn drafts, which
are followed as if they had been chosen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from unspool.engine.contracts import Decision, Target
from unspool.engine.method import ACCEPTANCE, Method
from unspool.engine.option import Options, option


@dataclass(frozen=True)
class AtMostOptions(Options):
    """Options of ``at_most``.

    Attributes:
        tokens: most drafted tokens that are accepted in a pass, at least 1.
    """

    tokens: int = option(4, least=1)


class AtMost:
    """Descends the tree while a child holds the token that plain decoding takes."""

    uses_draft_probs = False

    def __init__(self, options: AtMostOptions) -> None:
        self.options = options

    def decide(self, target: Target, rng: Callable[[], np.random.Generator]) -> Decision:
        path, tree = [0], target.tree
        while True:
            token = target.choose(path[-1])  # the argmax, or the draw with the noise of the position
            child = next((child for child in tree.children[path[-1]] if tree.tokens[child] == token), None)
            if child is None or len(path) > self.options.tokens:
                return Decision(tuple(path), token)
            path.append(child)


METHOD = Method(
    kind=ACCEPTANCE,
    guarantee="identical",
    summary="Accepts plain decoding's tokens, at most a few a pass.",
    paper="none",
    options=AtMostOptions,
    build=lambda _, options: AtMost(options),
)
