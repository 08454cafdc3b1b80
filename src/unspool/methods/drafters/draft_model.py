"""Speculative decoding with a draft model: "Fast Inference from Transformers via Speculative Decoding" (2022).

A smaller model with the same tokenizer drafts a chain, one pass per token; the target scores the chain in one pass. The
draft model's cache keeps the accepted tokens.

What it changes about plain decoding: one pass of the target yields several of its tokens. Guarantee: identical under
the greedy and the same-noise rule (the draft is drawn with the same noise as plain decoding), and the same distribution
under the lossless rule, which receives the distributions that drafts were drawn from.

Left out: transformers' heuristic schedule of the draft length; ``specdec_pp`` stops a draft by its own probabilities.
Models with another tokenizer are refused when they are loaded.
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
        num_assistant_tokens: draft length in tokens, at least 1.
    """

    num_assistant_tokens: int = option(5, least=1)


class DraftModel:
    """Drafts a chain with a draft model.

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
        """Does nothing: the draft model reads the prompt with the first draft."""

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
        """The ``k`` ids that the draft model ranks highest for the token after the text; None if it did not run."""
        return self._assistant.first_ranking(k)

    def observe(self, step: Step) -> None:
        """Does nothing: the next draft starts from the longest prefix that the committed text shares with the last."""


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
