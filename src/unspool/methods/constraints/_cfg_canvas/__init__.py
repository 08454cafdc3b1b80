"""Constrained Decoding of Diffusion LLMs with Context-Free Grammars (2025): every canvas can always be completed.

A canvas with holes represents a set of texts. A token is committed only if one of the remaining texts fits the grammar:
the intersection of the grammar with an automaton of the canvas must not be empty. Guarantee: valid. Tokens are refused
only if nothing after them fits, and if none is refused, the run is the same as without the constraint.

Departs from the released code: holes have exactly as many tokens as masks, where the code allows any number. So every
mask always has a token that may be committed, no run ends in a dead end, and the code's search for a shortest
completion is not needed. In return fragments are not lexed ahead of the search: terminals are matched on the tokens
themselves, including tokens that contain several lexemes or parts of one. A refused slot waits for the next pass; the
code tries its next tokens within the same one.

Left out: tokens that are a part of a character, such as single bytes of byte-level vocabularies; they are never filled
in. Time limits of the search.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from unspool.errors import UnspoolError
from unspool.methods.constraints._cfg_canvas.cfg import Grammar, Row, Terminal, members

Slots = Sequence[int | None]

_REMEMBERED = 1 << 13
"""Verdicts and ends of canvases to cache."""

_EVERY = -1
"""The kind of a masked slot; that of any other slot is its token."""


class _Place(NamedTuple):
    """A position between two characters: before slot ``slot``, or after ``prefix`` of the token in it."""

    slot: int
    prefix: str


@dataclass(frozen=True, eq=False)
class _Tail:
    """A slot and all slots after it, independent of what is before.

    Attributes:
        slot: the first one.
        kind: what is in it.
        behind: the tail of the next slot.
        ends: by terminal, prefix in the slot and state there, where lexemes end: a set of places.
        rows: what can be derived from a prefix in the slot on, by the terminals that may come there.
    """

    slot: int
    kind: int
    behind: _Tail | None
    ends: dict[tuple[int, str, int], int]
    rows: dict[tuple[str, tuple[int, ...]], Row]


class CFGCanvas:
    """Decides which canvases can be completed, and so which tokens may be committed.

    Args:
        grammar: what the text up to the end token must fit.
        texts: the characters of each token of the vocabulary; None for tokens without text, which are never filled in
            (masks, padding). The end token's is ignored.
        eos_token_id: the token that ends the text. Only itself may follow it.
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
        self._named = [*enumerate(grammar.terminals), *((-1 - i, t) for i, t in enumerate(grammar.ignored))]
        self._numbers: dict[_Place, int] = {}
        self._inner: dict[int, list[str]] = {}  # prefixes of the places within each slot
        self._kept: dict[tuple[int, Slots], _Tail] = {}
        self._known: dict[tuple[int, int, str, int], tuple[frozenset[int], frozenset[str]]] = {}
        self._verdict = lru_cache(maxsize=_REMEMBERED)(self._search)

    def check(self, slots: Slots) -> None:
        """Raise an ``UnspoolError`` if the canvas cannot be completed, before any pass."""
        if not self.completable(slots):
            if any(token is not None for token in slots):
                raise UnspoolError("the given slots contradict the grammar; no text with them fits")
            raise UnspoolError(f"no text of at most {len(slots)} tokens fits the grammar; use a longer canvas")

    def allows(self, slots: Slots, slot: int, token: int) -> bool:
        """Whether the canvas can still be completed with ``token`` in ``slot``."""
        return self.completable([*slots[:slot], token, *slots[slot + 1 :]])

    def completable(self, slots: Slots) -> bool:
        """Whether some tokens in place of the masks give a text that fits the grammar."""
        return self._verdict(tuple(slots))

    def _search(self, slots: tuple[int | None, ...]) -> bool:
        grammar, start = self._grammar, self._number(_Place(0, ""))
        tails = self._tails(slots)
        # The text may end before slot i if only end tokens are, or can be, from there on.
        finals = 0
        for slot in range(len(slots), -1, -1):
            finals |= 1 << self._number(_Place(slot, ""))
            if slot and slots[slot - 1] not in (None, self._eos):
                break
        # Forward: after which terminals a place is reached. Only what may follow one of them is searched there.
        reached = [0] * len(grammar.terminals) + [1 << start]  # the last entry: the beginning of the text
        follows = [*grammar.follows, grammar.first]
        found: list[tuple[int, _Tail, str, tuple[int, ...], int]] = []
        for tail in tails:
            for prefix in self._prefixes_at(tail.slot):
                number = self._number(_Place(tail.slot, prefix))
                before = [terminal for terminal, places in enumerate(reached) if places >> number & 1]
                if not before:
                    continue
                allowed = tuple(sorted(set().union(*(follows[terminal] for terminal in before))))
                for terminal in allowed:
                    reached[terminal] |= self._lexemes(tail, terminal, prefix)
                skipped = 0
                for i in range(len(grammar.ignored)):
                    skipped |= self._lexemes(tail, -1 - i, prefix)
                for terminal in before if skipped else ():
                    reached[terminal] |= skipped
                found.append((number, tail, prefix, allowed, skipped))
        # Backward: what can be derived from each place on. Ignored text belongs to what comes after it.
        rows: dict[int, Row] = {}
        for number, tail, prefix, allowed, skipped in reversed(found):
            finals |= bool(skipped & finals) << number
            row = tail.rows.get((prefix, allowed))
            if row is None:
                row = grammar.spans(((t, self._lexemes(tail, t, prefix)) for t in allowed), rows)
                for place in members(skipped):
                    for symbol, ends in rows.get(place, {}).items():
                        row[symbol] = row.get(symbol, 0) | ends
                tail.rows[prefix, allowed] = row
            rows[number] = row
        if grammar.empty_text and finals >> start & 1:
            return True
        return bool(rows.get(start, {}).get(grammar.start, 0) & finals)

    def _number(self, place: _Place) -> int:
        if place not in self._numbers:
            self._numbers[place] = len(self._numbers)
            if place.prefix:
                insort(self._inner.setdefault(place.slot, []), place.prefix, key=len)
        return self._numbers[place]

    def _prefixes_at(self, slot: int) -> Iterator[str]:
        """Prefixes of the places in a slot, in order, including places that are added meanwhile."""
        yield ""
        done: set[str] = set()
        # An added place is after the current one, so its prefix is longer.
        while (prefix := next((p for p in self._inner.get(slot, ()) if p not in done), None)) is not None:
            done.add(prefix)
            yield prefix

    def _tails(self, slots: tuple[int | None, ...]) -> list[_Tail]:
        """The tails of all slots; canvases with the same end share them."""
        tails: list[_Tail] = []
        for slot in range(len(slots) - 1, -1, -1):
            key = (slot, slots[slot:])
            if key not in self._kept:
                if len(self._kept) > _REMEMBERED:
                    self._kept.clear()
                kind = _EVERY if slots[slot] is None else slots[slot]
                assert kind is not None
                self._kept[key] = self._tail(slot, kind, tails[-1] if tails else None)
            tails.append(self._kept[key])
        return tails[::-1]

    def _tail(self, slot: int, kind: int, behind: _Tail | None) -> _Tail:
        tail = _Tail(slot, kind, behind, {}, {})
        for name, terminal in self._named:
            for state in terminal.states:
                tail.ends[name, "", state] = self._ends(tail, name, terminal, "", state)
        return tail

    def _lexemes(self, tail: _Tail, name: int, prefix: str) -> int:
        """The places where a lexeme of the terminal that begins after ``prefix`` in the first slot can end."""
        terminal = self._grammar.terminals[name] if name >= 0 else self._grammar.ignored[-1 - name]
        key = (name, prefix, terminal.initial)
        if key not in tail.ends:
            tail.ends[key] = 0 if terminal.empty else self._ends(tail, name, terminal, prefix, terminal.initial)
        return tail.ends[key]

    def _ends(self, tail: _Tail, name: int, terminal: Terminal, prefix: str, state: int) -> int:
        """The places where a lexeme can end that is in this state after ``prefix`` in the first slot."""
        after, inner = self._through(name, terminal, tail.kind, prefix, state)
        places = 0
        for longer in inner:
            places |= 1 << self._number(_Place(tail.slot, longer))
        for at in after:
            if terminal.accepts(at):
                places |= 1 << self._number(_Place(tail.slot + 1, ""))
            if tail.behind is not None:
                places |= tail.behind.ends[name, "", at]
        return places

    def _through(
        self, name: int, terminal: Terminal, kind: int, prefix: str, state: int
    ) -> tuple[frozenset[int], frozenset[str]]:
        """States after the rest of a slot's token, and prefixes of it after which a lexeme ends."""
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
