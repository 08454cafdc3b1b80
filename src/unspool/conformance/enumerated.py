"""Every tree that a drafter can draw in a round, with its probability: its own code, with a script for its noise.

A drafter draws by adding Gumbel noise to log-probabilities. ``ScriptedNoise`` sees what it is added to, so the order of
the tokens is a draw without replacement from the distribution that was used, whatever distribution is reported.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any
from unittest.mock import patch

import numpy as np

from unspool.backends.toy import ToyModel
from unspool.conformance.check import require
from unspool.conformance.enumeration import Row, Script, Text
from unspool.engine import noise
from unspool.engine.autoregressive import Request, decode
from unspool.engine.contracts import Context, Drafter
from unspool.engine.options import GenerationOptions
from unspool.engine.tree import TokenTree
from unspool.methods.acceptance.lossless import Lossless

Make = Callable[[], Drafter]


class ScriptedNoise(np.ndarray):
    """Noise whose sum with log-probabilities is in the order that ``script`` draws; good for one sum."""

    script: Script
    used: bool

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **_: Any) -> Row:
        added = ufunc is np.add and method == "__call__"
        require(added, f"the noise of a round must be added to log-probabilities, not put into {ufunc.__name__}")
        require(not self.used, "the noise of a round was used twice")
        self.used = True
        (logprobs,) = (part for part in inputs if part is not self)
        rest, keys = np.exp(logprobs - logprobs.max()), np.full(len(logprobs), -np.inf)
        for place in range(np.count_nonzero(rest)):
            token = self.script.draw(rest / rest.sum())
            keys[token] = -place
            rest[token] = 0
        return keys


class ScriptedGenerator:
    """A generator for a round. ``random`` stays what it is: no draw is made from it that a rule would test."""

    def __init__(self, script: Script, of_the_round: bool, generator: np.random.Generator) -> None:
        self._script = script
        self._of_the_round = of_the_round
        self.random = generator.random

    def gumbel(self, size: int) -> ScriptedNoise:
        require(self._of_the_round, "a draft was drawn with the randomness of another round or another seed")
        made = np.zeros(size).view(ScriptedNoise)
        made.script, made.used = self._script, False
        return made


class _EnoughError(Exception):
    """Ends a request at the round whose tree was asked for."""


def draw_tree(
    make: Make, target: ToyModel, prompt: Text, at: int, budget: int, script: Script
) -> tuple[Text, TokenTree]:
    """The text before round ``at`` of a request, and the tree that the drafter then draws with ``script``."""
    drafter, found = make(), []
    propose, rounds = drafter.propose, iter(range(at + 1))

    def watched(context: Context, most: int) -> TokenTree:
        if next(rounds) < at:
            return propose(context, most)
        generator = noise._generator

        def scripted(seed: int, stream: int) -> ScriptedGenerator:
            expected = context.seed, len(context.tokens) | noise._DRAFT
            return ScriptedGenerator(script, (seed, stream) == expected, generator(seed, stream))

        def refused(raw: object) -> None:
            require(False, "a draft was made with the noise of positions, which decides where draws are tested")

        with patch.object(noise, "_generator", scripted), patch.object(noise, "_exponential", refused):
            found.append((tuple(context.tokens), propose(context, budget)))
        raise _EnoughError

    drafter.propose = watched  # type: ignore[method-assign, assignment]
    options = GenerationOptions(max_new_tokens=400, temperature=1.0, seed=6)
    with suppress(_EnoughError):
        list(decode(target, [Request(prompt, drafter, Lossless(), options)]))
    require(len(found) == 1, f"the text ended before round {at}")
    return found[0]


def every_tree(
    make: Make, target: ToyModel, prompt: Text, at: int = 0, budget: int = 3, depth: int = 2
) -> tuple[Text, list[tuple[TokenTree, float]]]:
    """The text before round ``at``, and every tree of that round, cut at ``depth``, with its probability.

    Args:
        make: builds the drafter, in the same state each time. It is run once for each way to draw, from the prompt.
    """
    scripts: list[Text] = [()]
    drafts: dict[tuple[Text, Text], tuple[TokenTree, float]] = {}
    text: Text = ()
    while scripts:
        script = Script(scripts.pop(), scripts)
        text, tree = draw_tree(make, target, prompt, at, budget, script)
        tree = tree.truncated(depth)
        _, weight = drafts.get((tree.tokens, tree.parents), (tree, 0.0))
        drafts[tree.tokens, tree.parents] = tree, weight + script.probability
    return text, list(drafts.values())
