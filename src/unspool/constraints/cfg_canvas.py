"""Constrained Decoding of Diffusion LLMs with Context-Free Grammars (2025): no canvas that cannot be completed.

A canvas with holes stands for a set of texts. A token is committed only if one of the texts that are left fits the
grammar: the intersection of the grammar with an automaton of the canvas must not be empty. Guarantee: valid. Tokens are
only refused if nothing fits behind them, and where none is refused the run is the one without the constraint.

Departs from the released code: holes have exactly as many tokens as masks, where the code lets them have
any number. So every mask always has a token that may be committed, no run ends in a dead end, and the search for a
shortest completion that the code needs for those is not needed. In return fragments are not lexed ahead of the search:
terminals are walked over the tokens themselves, also over those that hold several lexemes or parts of one. A refused
slot waits for the next pass, where the code tries its next tokens within the same one.

Left out: tokens that are a part of a character, such as single bytes of byte-level vocabularies; they are never filled
in. Time limits of the search.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from unspool.constraints.cfg import Grammar, Terminal, Triple
from unspool.errors import UnspoolError

Slots = Sequence[int | None]

_REMEMBERED = 1 << 16
"""Verdicts that are kept."""

_EVERY = -1
"""The kind of a slot that holds a mask; that of others is their token."""


class _Place(NamedTuple):
    """Between two characters: before slot ``slot``, or behind ``prefix`` of the token in it."""

    slot: int
    prefix: str


class CFGCanvas:
    """Says which canvases can be completed, and so which tokens may be committed.

    Args:
        grammar: what the text up to the end token must fit.
        texts: of each token of the vocabulary, the characters that it stands for; None for tokens that are no text,
            which are never filled in (masks, padding). The end token's is not looked at.
        eos_token_id: the token that ends the text. Behind it only itself may follow.
    """

    def __init__(self, grammar: Grammar, texts: Sequence[str | None], eos_token_id: int) -> None:
        if not 0 <= eos_token_id < len(texts):
            raise UnspoolError(f"the end token must be one of the {len(texts)} tokens, not {eos_token_id}")
        self._grammar = grammar
        self._eos = eos_token_id
        self._texts = {token: text for token, text in enumerate(texts) if text and token != eos_token_id}
        self._prefixes: dict[str, list[str]] = {}
        for text in sorted(set(self._texts.values())):
            for end in range(len(text)):
                self._prefixes.setdefault(text[:end], []).append(text)
        self._known: dict[tuple[int, int, str, int], tuple[frozenset[int], frozenset[str]]] = {}
        self._verdict = lru_cache(maxsize=_REMEMBERED)(self._search)

    def check(self, slots: Slots) -> None:
        """Raise an ``UnspoolError`` if the canvas cannot be completed, before any pass."""
        if not self.completable(slots):
            if any(token is not None for token in slots):
                raise UnspoolError("the slots that are given contradict the grammar; no text with them fits")
            raise UnspoolError(f"no text of at most {len(slots)} tokens fits the grammar; take a longer canvas")

    def allows(self, slots: Slots, slot: int, token: int) -> bool:
        """Whether the canvas can still be completed with ``token`` in ``slot``."""
        return self.completable([*slots[:slot], token, *slots[slot + 1 :]])

    def completable(self, slots: Slots) -> bool:
        """Whether some tokens in place of the masks give a text that fits the grammar."""
        return self._verdict(tuple(slots))

    def _search(self, slots: tuple[int | None, ...]) -> bool:
        kinds = [_EVERY if token is None else token for token in slots]
        # The text may end before slot i if nothing but end tokens stands, or can stand, from there on.
        open_end = len(slots)
        while open_end and slots[open_end - 1] in (None, self._eos):
            open_end -= 1
        numbers: dict[_Place, int] = {_Place(0, ""): 0}
        waiting = [_Place(0, "")]
        seeds: list[Triple] = []
        skips: list[tuple[int, int]] = []

        def number(place: _Place) -> int:
            if place not in numbers:
                numbers[place] = len(numbers)
                waiting.append(place)
            return numbers[place]

        while waiting:
            place = waiting.pop()
            for i, terminal in enumerate(self._grammar.terminals):
                seeds += [(numbers[place], i, number(end)) for end in self._lexemes(i, terminal, kinds, place)]
            for i, terminal in enumerate(self._grammar.ignored):
                skips += [(numbers[place], number(end)) for end in self._lexemes(-1 - i, terminal, kinds, place)]
        finals = {n for place, n in numbers.items() if not place.prefix and place.slot >= open_end}
        return self._grammar.derives(*self._skipped(seeds, skips, finals, len(numbers)))

    @staticmethod
    def _skipped(
        seeds: list[Triple], skips: list[tuple[int, int]], finals: set[int], count: int
    ) -> tuple[list[Triple], range, int, set[int]]:
        """What may be ignored is part of the lexeme behind it, or of the end."""
        if not skips:
            return seeds, range(count), 0, finals
        before: dict[int, set[int]] = {}
        for p, q in skips:
            before.setdefault(q, set()).add(p)

        def reaching(state: int) -> set[int]:
            found, stack = {state}, [state]
            while stack:
                for p in before.get(stack.pop(), ()):
                    if p not in found:
                        found.add(p)
                        stack.append(p)
            return found

        wide = {state: reaching(state) for state in {p for p, _, _ in seeds} | finals}
        longer = [(start, terminal, q) for p, terminal, q in seeds for start in wide[p]]
        return longer, range(count), 0, set().union(*(wide[state] for state in finals)) if finals else set()

    def _lexemes(self, name: int, terminal: Terminal, kinds: list[int], place: _Place) -> set[_Place]:
        """Where a lexeme of the terminal that begins at ``place`` can end."""
        found: set[_Place] = set()
        states = {terminal.initial}
        slot, prefix = place
        while states and slot < len(kinds):
            after: set[int] = set()
            for state in states:
                ends, inner = self._through(name, terminal, kinds[slot], prefix, state)
                after |= ends
                found |= {_Place(slot, longer) for longer in inner}
            slot, prefix, states = slot + 1, "", after
            if any(terminal.accepts(state) for state in states):
                found.add(_Place(slot, ""))
        return found

    def _through(
        self, name: int, terminal: Terminal, kind: int, prefix: str, state: int
    ) -> tuple[frozenset[int], frozenset[str]]:
        """States behind the rest of a slot's token, and prefixes of it behind which a lexeme ends."""
        key = (name, kind, prefix, state)
        if key not in self._known:
            if kind == _EVERY:
                texts = self._prefixes.get(prefix, [])
            else:
                text = self._texts.get(kind, "")
                texts = [text] if len(text) > len(prefix) and text.startswith(prefix) else []
            ends: set[int] = set()
            inner: set[str] = set()
            for text in texts:
                at = state
                for i in range(len(prefix), len(text)):
                    after = terminal.step(at, text[i])
                    if after is None:
                        break
                    at = after
                    if i + 1 < len(text) and terminal.accepts(at):
                        inner.add(text[: i + 1])
                else:
                    ends.add(at)
            self._known[key] = frozenset(ends), frozenset(inner)
        return self._known[key]
