"""An example of a third-party method (no paper): draft the token that last followed the newest one, and so on.

Changes about plain decoding: several of its tokens may leave one pass. Guarantee: identical. Left out: longer contexts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from unspool.engine.contracts import Context, Step
from unspool.engine.method import DRAFTER, Method
from unspool.engine.option import Options, option
from unspool.engine.tree import TokenTree


@dataclass(frozen=True)
class BigramOptions(Options):
    """Options of ``bigram``.

    Attributes:
        num_assistant_tokens: most tokens of a draft, at least 1.
    """

    num_assistant_tokens: int = option(4, least=1)


class Bigram:
    """Drafts a chain. One object serves one sequence."""

    def __init__(self, options: BigramOptions) -> None:
        self.options = options
        self.after: dict[int, int] = {}  # token -> the token that last followed it

    def _learn(self, tokens: Sequence[int]) -> None:
        self.after.update(pairwise(tokens))

    def start(self, context: Context) -> None:
        self.after.clear()
        self._learn(context.tokens)

    def propose(self, context: Context, budget: int) -> TokenTree:
        chain = [context.tokens[-1]]
        while len(chain) < min(budget, 1 + self.options.num_assistant_tokens) and chain[-1] in self.after:
            chain.append(self.after[chain[-1]])
        return TokenTree.chain(chain, source="bigram")

    def observe(self, step: Step) -> None:
        self._learn(step.context.tokens[-len(step.emitted) - 1 :])


SUMMARY = "Drafts the tokens that last followed one another."
METHOD = Method(DRAFTER, "identical", SUMMARY, "none", BigramOptions, lambda _, options: Bigram(options))
