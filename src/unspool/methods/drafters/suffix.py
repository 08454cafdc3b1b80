"""SAM Decoding: Speculative Decoding via Suffix Automaton (2024), and SuffixDecoding (2024): drafts from the own text.

Finds the longest suffix of the text, prompt and output together, that occurred before, however long it is, and drafts
what followed it. The draft is chosen, not drawn, so the text stays that of plain decoding.

Choices, measured on 26 greedy answers of 96 tokens by SmolLM2-135M-Instruct:
- Of several occurrences the most recent one is continued (SAM-Decoding takes the earliest): 1.48 against 1.46 tokens
  a pass.
- A draft that reaches the end of the text goes on reading in itself, so a text that repeats itself is continued: 1.49.
- The draft is a chain. A second branch, after a shorter suffix, took its nodes from the chain and gained nothing at
  any budget from 5 to 16.

Left out: text of other requests (both papers can search a corpus as well), frequency counts, and switching to another
drafter when the match is short: ``auto`` lets drafters compete.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unspool.engine.contracts import Context, Step
from unspool.engine.tree import TokenTree
from unspool.errors import UnspoolError

MAX_BUCKET = 15
"""Longer matches share this bucket."""

_MARKED = 32


class SuffixAutomaton:
    """The suffix automaton of a growing text (Blumer et al., 1985): every substring leads to one state.

    A state stands for all substrings that end at the same places. Its link leads to its longest suffix that also ends
    elsewhere, so one link from the state of the whole text leads to the longest suffix that occurred before.
    """

    def __init__(self) -> None:
        self._length = [0]  # of the longest substring of the state
        self._link = [-1]
        self._next: list[dict[int, int]] = [{}]
        self._end = [0]  # number of tokens up to and including the last marked occurrence
        self._whole = 0  # the state of the whole text
        self._size = 0

    def __len__(self) -> int:
        """Number of tokens of the text."""
        return self._size

    def _state(self, length: int, link: int, transitions: dict[int, int], end: int) -> int:
        self._length.append(length)
        self._link.append(link)
        self._next.append(transitions)
        self._end.append(end)
        return len(self._link) - 1

    def extend(self, token: int) -> None:
        """Append one token; amortised constant time."""
        self._mark()
        self._size += 1
        new = self._state(self._size, 0, {}, self._size)
        state = self._whole
        self._whole = new
        while state >= 0 and token not in self._next[state]:
            self._next[state][token] = new
            state = self._link[state]
        if state < 0:
            return
        target = self._next[state][token]
        length = self._length[state] + 1
        if self._length[target] == length:
            self._link[new] = target
            return
        # The shorter substrings of the target now end in more places than its longer ones: they need their own state.
        clone = self._state(length, self._link[target], dict(self._next[target]), self._end[target])
        while state >= 0 and self._next[state].get(token) == target:
            self._next[state][token] = clone
            state = self._link[state]
        self._link[target] = self._link[new] = clone

    def _mark(self) -> None:
        # The text's suffixes ended at its end. Recorded before the next token comes, so that ``match`` still sees the
        # occurrence before. In text of short period there are as many suffixes as tokens; marking only the longest
        # keeps the time constant, and an older mark is an occurrence too.
        state = self._link[self._whole]
        for _ in range(_MARKED):
            if state <= 0:
                return
            self._end[state] = self._size
            state = self._link[state]

    def match(self) -> tuple[int, int]:
        """The longest suffix of the text that occurred before.

        Returns:
            (its length in tokens, position after its most recent earlier occurrence); (0, 0) if there is none.
        """
        state = max(self._link[self._whole], 0)
        return self._length[state], self._end[state]


@dataclass(frozen=True)
class SuffixOptions:
    """The default is that of SAM-Decoding's code.

    Attributes:
        num_assistant_tokens: most tokens of a draft, at least 1.
    """

    num_assistant_tokens: int = 40

    def __post_init__(self) -> None:
        if self.num_assistant_tokens < 1:
            raise UnspoolError(f"num_assistant_tokens must be at least 1, not {self.num_assistant_tokens}")


class Suffix:
    """A chain after the longest suffix that occurred before.

    The bucket of a node is the length of the match if all before it is right, at most 15.
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
        """Nothing: committed tokens are read in ``propose``."""
