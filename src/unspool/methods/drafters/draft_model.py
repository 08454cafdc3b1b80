"""Speculative decoding with a draft model: "Fast Inference from Transformers via Speculative Decoding" (2022).

A smaller model of the same tokenizer writes a chain, one pass a token; the target scores the chain in one pass. The
draft model's cache is kept in step: what was accepted stays in it.

What it changes about plain decoding: several of its tokens leave one pass of the target. Guarantee: identical under the
greedy and the same-noise rule (the draft is drawn with the very noise that plain decoding draws with), and the same
distribution under the lossless rule, which is told what the drafts were drawn from.

Left out: transformers' heuristic schedule of the draft's length; ``specdec_pp`` stops a draft by what it has seen.
Models of another tokenizer are refused when they are loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unspool.engine.assistant import Assistant, Draws
from unspool.engine.contracts import Context, LanguageModel, Step
from unspool.engine.method import DRAFTER, Method, Needs
from unspool.engine.option import Options, option
from unspool.engine.tree import TokenTree, TreeBuilder
from unspool.methods.drafters._assisted import assisted


@dataclass(frozen=True)
class DraftModelOptions(Options):
    """Options of ``draft_model``.

    Attributes:
        num_assistant_tokens: tokens of a draft, at least 1.
    """

    num_assistant_tokens: int = option(5, least=1)


class DraftModel:
    """A chain from a draft model.

    Args:
        model: the draft model.
        vocab_size: of the target.
    """

    name = "draft_model"

    def __init__(self, options: DraftModelOptions, model: LanguageModel, vocab_size: int) -> None:
        self.options = options
        self._assistant = Assistant(model, vocab_size)
        self._vocab_size = vocab_size

    def start(self, context: Context) -> None:
        """Nothing: the draft model reads the prompt with the first draft."""

    def propose(self, context: Context, budget: int) -> TokenTree:
        """A chain of at most ``min(budget, num_assistant_tokens + 1)`` nodes."""
        builder = TreeBuilder(context.tokens[-1])
        length = min(budget - 1, self.options.num_assistant_tokens, self._assistant.levels(context.tokens))
        if length > 0:
            self._assistant.follow(context.tokens)
            draws = Draws(context, self._vocab_size)
            for node in range(length):
                logits = self._assistant.step(builder.tokens[node])
                (token,), distribution = draws.siblings(logits, node, 1)
                builder.add(node, int(token), self.name, draft=builder.drawn_from(distribution))
        return builder.build()

    def first_ranking(self, k: int) -> Sequence[int] | None:
        """The ``k`` ids that the draft model ranks highest for the token after the text; None if it was not asked."""
        return self._assistant.first_ranking(k)

    def observe(self, step: Step) -> None:
        """Nothing: the next draft begins with what the committed text shares with the last one."""


METHOD = Method(
    kind=DRAFTER,
    guarantee="identical",
    summary="Drafts a chain with a smaller model of the same tokenizer.",
    paper="Fast Inference from Transformers via Speculative Decoding (2022)",
    options=DraftModelOptions,
    build=assisted(DraftModel),
    needs=Needs(assistant=True),
    draws=True,
)
