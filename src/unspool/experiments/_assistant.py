"""Helpers for draft models: a model that drafts for itself with coarser weights, and control trees."""

from __future__ import annotations

import numpy as np

from unspool.conformance.enumeration import Node, build
from unspool.decoding.model import Model
from unspool.engine.assistant import Assistant, Draws
from unspool.engine.contracts import Context, LanguageModel, Step
from unspool.engine.tree import DraftDistribution, TokenTree
from unspool.reproduce.setup import Setup


def with_draft(setup: Setup) -> tuple[Model, LanguageModel, int]:
    """The run's model, its draft model (its own weights in int4), and the size of the vocabulary."""
    model = setup.language_model(assistant_model=f"{setup.model}@int4")
    assert model.assistant is not None
    return model, model.assistant.language_model, model.language_model.vocab_size


class IndependentTree:
    """A tree of constant branching whose siblings are drawn with replacement, so that some are drawn twice."""

    name = "independent"

    def __init__(self, branching: tuple[int, ...], model: LanguageModel, vocab_size: int) -> None:
        self._branching = branching
        self._assistant = Assistant(model, vocab_size)
        self._vocab_size = vocab_size

    def start(self, context: Context) -> None: ...

    def propose(self, context: Context, budget: int) -> TokenTree:
        nodes: list[Node] = [(context.tokens[-1], -1, None)]
        level = [0]
        self._assistant.follow(context.tokens)
        draws = Draws(context, self._vocab_size)
        for depth, count in enumerate(self._branching):
            below = []
            for parent, logits in zip(level, self._assistant.score(build(nodes), level).copy(), strict=True):
                logprobs = draws.logprobs(logits)
                distribution = DraftDistribution(np.exp(logprobs), replacement=True)
                for _ in range(count):
                    below.append(len(nodes))
                    nodes.append((int(np.argmax(logprobs + draws.noise(depth))), parent, distribution))
            level = below
        return build(nodes)

    def observe(self, step: Step) -> None: ...


class RandomChain:
    """A chain of random tokens of the vocabulary: the value of an uninformed draft."""

    name = "random"

    def __init__(self, length: int, vocab_size: int, seed: int = 0) -> None:
        self._length = length
        self._vocab_size = vocab_size
        self._rng = np.random.default_rng(seed)

    def start(self, context: Context) -> None: ...

    def propose(self, context: Context, budget: int) -> TokenTree:
        length = min(self._length, budget - 1)
        return TokenTree.chain([context.tokens[-1], *self._rng.integers(self._vocab_size, size=length).tolist()])

    def observe(self, step: Step) -> None: ...
