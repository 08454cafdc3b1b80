"""The suffix automaton of a growing text: finds the earlier occurrence of its longest repeated suffix."""

from __future__ import annotations

_MARKED = 32


class SuffixAutomaton:
    """The suffix automaton of a growing text (Blumer et al., 1985): every substring leads to one state.

    A state represents all substrings with the same end positions. Its link points to its longest suffix that also ends
    elsewhere, so the link of the whole text's state leads to the longest suffix that occurred before.
    """

    def __init__(self) -> None:
        self._length = [0]  # of the longest substring of the state
        self._link = [-1]
        self._next: list[dict[int, int]] = [{}]
        self._end = [0]  # end position of the last marked occurrence
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
        # The shorter substrings of the target now end in more places than its longer ones, so they need a state.
        clone = self._state(length, self._link[target], dict(self._next[target]), self._end[target])
        while state >= 0 and self._next[state].get(token) == target:
            self._next[state][token] = clone
            state = self._link[state]
        self._link[target] = self._link[new] = clone

    def _mark(self) -> None:
        # Marks the end position of the text's suffixes before the next token arrives, so that ``match`` sees the
        # earlier occurrence. A text of short period has as many suffixes as tokens. Marking only the longest keeps the
        # time constant; an older mark is a valid occurrence too.
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
