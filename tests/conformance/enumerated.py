"""Every tree that a drafter can draw in a round, with its probability: its own code, with a script for its noise.

A drafter draws by adding Gumbel noise to log-probabilities. ``ScriptedNoise`` sees what it is added to, so the order of
the tokens is a draw without replacement from the distribution that was used, whatever distribution is reported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from unspool.backends.toy import ToyModel
from unspool.conformance.enumeration import Row, Script, Text
from unspool.engine import noise
from unspool.engine.autoregressive import Request, decode
from unspool.engine.contracts import Context, Drafter
from unspool.engine.options import GenerationOptions
from unspool.engine.tree import TokenTree
from unspool.methods.acceptance.lossless import Lossless

Make = Callable[[], Drafter]


class ScriptedNoise(np.ndarray):  # type: ignore[type-arg]
    """Noise whose sum with log-probabilities is in the order that ``script`` draws; good for one sum."""

    script: Script
    used: bool

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **_: Any) -> Row:
        assert ufunc is np.add and method == "__call__", f"noise is added to log-probabilities, not put into {ufunc}"
        assert not self.used, "noise is added once"
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
        assert self._of_the_round, "drawn with the randomness of another round or seed"
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
            raise AssertionError("the noise of positions decides beside draws, so drafts must not be made with it")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(noise, "_generator", scripted)
            patch.setattr(noise, "_exponential", refused)
            found.append((tuple(context.tokens), propose(context, budget)))
        raise _EnoughError

    drafter.propose = watched  # type: ignore[method-assign]
    options = GenerationOptions(max_new_tokens=40, temperature=1.0, seed=6)
    with pytest.raises(_EnoughError):
        list(decode(target, [Request(prompt, drafter, Lossless(), options)]))
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
