"""An example of a third-party method (no paper): draft the token that last followed the newest one, and so on.

Changes about plain decoding: several of its tokens may leave one pass. Guarantee: identical. Left out: longer contexts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unspool.engine.contracts import Context, Step
from unspool.engine.tree import TokenTree
from unspool.methods import Method


@dataclass(frozen=True)
class BigramOptions:
    """Options of ``bigram``.

    Attributes:
        num_assistant_tokens: most tokens of a draft.
    """

    num_assistant_tokens: int = 4


class Followers:
    """What last followed each token; a ``Memory``, kept between requests."""

    def __init__(self) -> None:
        self.after: dict[int, int] = {}

    def learn(self, tokens: Sequence[int]) -> None:
        self.after.update(zip(tokens, tokens[1:], strict=False))

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(list(self.after.items())))

    def load(self, path: Path) -> None:
        self.after = dict(json.loads(path.read_text()))

    def reset(self) -> None:
        self.after.clear()


class Bigram:
    """A chain; one object serves one sequence."""

    def __init__(self, options: BigramOptions, memory: Followers) -> None:
        self.options, self.memory = options, memory

    def start(self, context: Context) -> None:
        self.memory.learn(context.tokens)

    def propose(self, context: Context, budget: int) -> TokenTree:
        chain = [context.tokens[-1]]
        while len(chain) < min(budget, 1 + self.options.num_assistant_tokens) and chain[-1] in self.memory.after:
            chain.append(self.memory.after[chain[-1]])
        return TokenTree.chain(chain, source="bigram")

    def observe(self, step: Step) -> None:
        self.memory.learn(step.context.tokens[-len(step.emitted) - 1 :])


METHOD = Method(
    name="bigram",
    kind="drafter",
    guarantee="identical",
    summary="Drafts the tokens that last followed one another.",
    paper="none: an example",
    options=BigramOptions,
    build=lambda surroundings, options: Bigram(options, surroundings.memory("bigram", Followers)),
)
