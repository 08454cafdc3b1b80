"""SAM Decoding: Speculative Decoding via Suffix Automaton (2024), and SuffixDecoding (2024): drafts from its own text.

Finds the longest suffix of the text, prompt and output together, that occurred before, of any length, and drafts what
followed it. The draft is chosen, not drawn, so the text stays that of plain decoding.

Choices, measured on 26 greedy answers of 96 tokens by SmolLM2-135M-Instruct, in mean accepted tokens per forward pass:
- Of several occurrences the most recent one is continued (SAM-Decoding takes the earliest): 1.48 against 1.46.
- A draft that reaches the end of the text continues from its own start, so a repeating text is continued: 1.49.
- The draft is a chain. A second branch, after a shorter suffix, took its nodes from the chain and gained nothing at any
  budget from 5 to 16.

Left out: text of other requests (both papers can search a corpus as well), frequency counts, and switching to another
drafter when the match is short: ``auto`` makes drafters compete.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unspool.engine.contracts import Context, Step
from unspool.engine.method import DRAFTER, Method
from unspool.engine.option import Options, option
from unspool.engine.suffix_automaton import SuffixAutomaton
from unspool.engine.tree import TokenTree

MAX_BUCKET = 15
"""Length of match from which all matches share one bucket."""


@dataclass(frozen=True)
class SuffixOptions(Options):
    """The default is that of SAM-Decoding's code.

    Attributes:
        num_assistant_tokens: most tokens of a draft, at least 1.
    """

    num_assistant_tokens: int = option(40, least=1)


class Suffix:
    """A chain after the longest suffix that occurred before.

    The bucket of a node is the length of the match if all nodes before it are right, at most 15.
    """

    name = "suffix"

    def __init__(self, options: SuffixOptions | None = None) -> None:
        self.options = options or SuffixOptions()
        self._automaton = SuffixAutomaton()

    def start(self, context: Context) -> None:
        """Read the prompt."""
        self._automaton = SuffixAutomaton()
        self._follow(context.tokens)

    def _follow(self, tokens: Sequence[int]) -> None:
        for position in range(len(self._automaton), len(tokens)):
            self._automaton.extend(tokens[position])

    def propose(self, context: Context, budget: int) -> TokenTree:
        """A chain of at most ``min(budget, num_assistant_tokens + 1)`` nodes."""
        tokens = context.tokens
        self._follow(tokens)
        matched, end = self._automaton.match()
        if not matched:
            return TokenTree((tokens[-1],), (-1,), source_names=("root", self.name))
        period = len(tokens) - end
        length = min(budget - 1, self.options.num_assistant_tokens)
        return TokenTree(
            (tokens[-1], *(tokens[end + i % period] for i in range(length))),
            tuple(range(-1, length)),
            source_names=("root", self.name),
            buckets=(0, *(min(matched + i, MAX_BUCKET) for i in range(length))),
        )

    def observe(self, step: Step) -> None:
        """Does nothing: committed tokens are read in ``propose``."""


METHOD = Method(
    kind=DRAFTER,
    guarantee="identical",
    summary="Drafts what followed an earlier occurrence of the text's longest suffix, found by a suffix automaton.",
    paper="SAM Decoding: Speculative Decoding via Suffix Automaton (2024)",
    options=SuffixOptions,
    build=lambda _, options: Suffix(options),
)
