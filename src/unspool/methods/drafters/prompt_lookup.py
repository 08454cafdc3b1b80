"""Prompt Lookup Decoding (Saxena, 2023), with the choices of transformers' ``prompt_lookup_num_tokens``.

Drafts a chain: what followed the first occurrence of the text's last n-gram, in prompt and output. The longest n-gram
that occurred before is used, at its earliest occurrence. The draft is chosen, not drawn, so the text stays that of
plain decoding.

Every n-gram is indexed once, when the token after it is committed. A proposal is then a few dictionary look-ups,
however long the text is (transformers compares the n-gram with every window of the text at every step).

Left out: transformers cuts a draft before an end-of-text token and before tokens that a logits processor forbids. Here
the loop ends the text at the former and rejects the latter, for every drafter alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unspool.engine.contracts import Context, Step
from unspool.engine.method import DRAFTER, Method
from unspool.engine.option import Options, option
from unspool.engine.tree import TokenTree


@dataclass(frozen=True)
class PromptLookupOptions(Options):
    """Defaults are those of transformers 5 (``PromptLookupCandidateGenerator``).

    Attributes:
        num_assistant_tokens: most tokens of a draft, at least 1.
        max_matching_ngram_size: longest n-gram to look up, in tokens, at least 1.
    """

    num_assistant_tokens: int = option(10, least=1)
    max_matching_ngram_size: int = option(2, least=1)


class PromptLookup:
    """A chain after the earliest occurrence of the longest n-gram; the bucket is the size of the n-gram."""

    name = "prompt_lookup"

    def __init__(self, options: PromptLookupOptions | None = None) -> None:
        self.options = options or PromptLookupOptions()
        self._forget()

    def _forget(self) -> None:
        self._followed_by: dict[tuple[int, ...], int] = {}  # n-gram -> position of the token after its first occurrence
        self._indexed = 1  # n-grams that end before this position are indexed

    def start(self, context: Context) -> None:
        """Index the prompt."""
        self._forget()
        self._follow(context.tokens)

    def _follow(self, tokens: Sequence[int]) -> None:
        for position in range(self._indexed, len(tokens)):
            for size in range(1, min(self.options.max_matching_ngram_size, position) + 1):
                self._followed_by.setdefault(tuple(tokens[position - size : position]), position)
        self._indexed = max(self._indexed, len(tokens))

    def propose(self, context: Context, budget: int) -> TokenTree:
        """A chain of at most ``min(budget, num_assistant_tokens + 1)`` nodes."""
        tokens = context.tokens
        self._follow(tokens)
        length = min(budget - 1, self.options.num_assistant_tokens)
        for size in range(min(self.options.max_matching_ngram_size, len(tokens) - 1), 0, -1):
            begin = self._followed_by.get(tuple(tokens[-size:]))
            if begin is not None:
                draft = tuple(tokens[begin : begin + length])
                return TokenTree(
                    (tokens[-1], *draft),
                    tuple(range(-1, len(draft))),
                    source_names=("root", self.name),
                    buckets=(0,) + (size,) * len(draft),
                )
        return TokenTree((tokens[-1],), (-1,), source_names=("root", self.name))

    def observe(self, step: Step) -> None:
        """Does nothing: committed tokens are read in ``propose``."""


METHOD = Method(
    kind=DRAFTER,
    guarantee="identical",
    summary="Drafts what followed an earlier occurrence of the last n-gram.",
    paper="Prompt Lookup Decoding (2023), as in transformers",
    options=PromptLookupOptions,
    build=lambda _, options: PromptLookup(options),
)
