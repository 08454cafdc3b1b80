"""llguidance's matcher together with the JSON guard: one parser of what may follow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unspool.methods.constraints.grammar.json_guard import JsonGuard, State

if TYPE_CHECKING:
    from llguidance import LLMatcher


class GuardedMatcher:
    """Has the method names of llguidance's own matcher; as there, an error stays with a matcher.

    Args:
        matcher: at the beginning of a text.
        size: of the vocabulary.
        guard: None if the text is not JSON.
        scarce: whether an object may run out of names.
    """

    def __init__(self, matcher: LLMatcher, size: int, guard: JsonGuard | None, scarce: bool) -> None:
        self._matcher, self._size, self._guard, self._scarce = matcher, size, guard, scarce
        self._states = [State()]  # of the guard, after each token
        self.is_accepting = matcher.is_accepting
        self.is_error = matcher.is_error
        self.is_stopped = matcher.is_stopped
        self.get_error = matcher.get_error
        self.compute_ff_tokens = matcher.compute_ff_tokens

    def deep_copy(self) -> GuardedMatcher:
        copy = GuardedMatcher(self._matcher.deep_copy(), self._size, self._guard, self._scarce)
        copy._states = list(self._states)
        return copy

    def mask(self) -> NDArray[np.bool_]:
        """Which tokens may follow: [size]; end tokens as in llguidance."""
        mask = self._grammar_mask()
        if self._guard is not None:
            state = self._states[-1]
            for token in np.flatnonzero(mask).tolist() if self._watches(state) else self._guard.doubtful(state, mask):
                mask[token] = self._guarded(token) is not None
        return mask

    def validate_tokens(self, tokens: Sequence[int]) -> int:
        """How many of them may follow, one after the other."""
        probe = self if len(tokens) == 1 else self.deep_copy()
        for count, token in enumerate(tokens):
            if probe._matcher.validate_tokens([token]) != 1 or probe._guarded(token) is None:
                return count
            if count < len(tokens) - 1:
                probe.consume_token(token)
        return len(tokens)

    def consume_token(self, token: int) -> bool:
        """Advance over a token that may follow."""
        state = self._states[-1]
        after = state if self._guard is None else self._guard.after(state, token)
        if after is None or not self._matcher.consume_token(token):
            return False
        self._states.append(after)
        return True

    def rollback(self, count: int) -> None:
        """Go back over the last tokens."""
        self._matcher.rollback(count)
        del self._states[len(self._states) - count :]

    def _grammar_mask(self) -> NDArray[np.bool_]:
        # The bits are padded to whole words.
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        return np.unpackbits(bits, count=self._size, bitorder="little").view(np.bool_)

    def _guarded(self, token: int) -> State | None:
        """The state after a token that the grammar allows; None if JSON must not continue with it."""
        state = self._states[-1]
        if self._guard is None:
            return state
        after = self._guard.after(state, token)
        if after is None or not self._watches(after):
            return after
        self.consume_token(token)
        leads_on = self._leads_on()
        self.rollback(1)
        return after if leads_on else None

    def _watches(self, state: State) -> bool:
        """Whether the names that may come here could all be used up."""
        return self._scarce and state.wants_name and state.shares()

    def _leads_on(self) -> bool:
        """Whether an unused name can be written here."""
        assert self._guard is not None
        state, doubtful = self._states[-1], []
        for token in np.flatnonzero(self._grammar_mask()).tolist():
            after = self._guard.after(state, token)
            if after is None:
                continue
            if not self._watches(after) or after.frame is not state.frame:
                return True
            doubtful.append(token)
        for token in doubtful:
            self.consume_token(token)
            leads_on = self._leads_on()
            self.rollback(1)
            if leads_on:
                return True
        return False
