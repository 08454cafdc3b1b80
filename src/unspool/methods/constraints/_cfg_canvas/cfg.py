"""Context-free grammars over characters, in the form that the emptiness search of ``cfg_canvas`` reads.

Grammars are written for lark (EBNF with regular expressions as terminals, ``%ignore`` for what may be between lexemes),
which expands them; interegular turns terminals into automata. Rules get one of the shapes A -> t, A -> B and A -> B C.
Unit rules are kept, so the grammar grows linearly, unlike in Chomsky normal form.

Lexemes need not be of maximal length, and a keyword is also an identifier where the grammar allows both: text is
accepted if it can be split into lexemes in some way. If that is too permissive, restrict the terminals.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from unspool.errors import UnspoolError

Row = dict[int, int]
"""By symbol, the places where its texts from one place can end: a set of numbers, as the bits of an integer."""


class Terminal:
    """The automaton of a terminal, without states from which no match can be reached.

    lark refuses terminals that match the empty text.
    """

    def __init__(self, name: str, pattern: str) -> None:
        import interegular

        try:
            fsm: Any = interegular.parse_pattern(pattern).to_fsm()
        except Exception as error:  # interegular's parser raises errors of several libraries
            raise UnspoolError(f"the pattern of terminal {name}, {pattern!r}, is not supported: {error}") from error
        self._fsm = fsm
        self.name = name
        self.initial: int = fsm.initial
        self._live = {state for state in fsm.states if fsm.islive(state)}
        self.empty = self.initial not in self._live
        self.states = sorted(self._live)

    def accepts(self, state: int) -> bool:
        """Whether the text that led here is a lexeme."""
        return state in self._fsm.finals

    def step(self, state: int, char: str) -> int | None:
        """The state after one more character; None if no lexeme continues with it."""
        after = self._fsm.map.get(state, {}).get(self._fsm.alphabet[char])
        return after if after in self._live else None


class Grammar:
    """A grammar without empty rules, except for a text that is empty as a whole. Symbols are numbers.

    Attributes:
        terminals: by number.
        ignored: what may come before and after every lexeme.
        start: the start symbol.
        empty_text: whether the empty text fits.
        first: terminals that a text may begin with.
        follows: by terminal, those that may come directly after it.

    Raises:
        UnspoolError: if the text is not a grammar, or no text at all fits it.
    """

    def __init__(self, text: str, start: str = "start") -> None:
        from lark import Lark
        from lark.exceptions import LarkError

        try:
            parsed: Any = Lark(text, parser="earley", lexer="dynamic", start=start)
        except LarkError as error:
            raise UnspoolError(f"the grammar cannot be read: {str(error).strip()}") from error
        patterns = {t.name: Terminal(t.name, t.pattern.to_regexp()) for t in parsed.terminals}
        self.ignored = [patterns[name] for name in parsed.ignore_tokens]
        self.terminals = [terminal for name, terminal in patterns.items() if name not in parsed.ignore_tokens]
        numbers = {terminal.name: i for i, terminal in enumerate(self.terminals)}
        self._symbols: dict[Any, int] = {}
        self._rules: list[tuple[int, tuple[int, ...]]] = []  # whole, at most two parts
        self._of_terminal = [self._symbol(("terminal", i)) for i in range(len(self.terminals))]
        self.start = self._symbol(("rule", start))
        for rule in parsed.rules:
            body = [
                self._symbol(("terminal", numbers[s.name]) if s.is_term else ("rule", str(s.name)))
                for s in rule.expansion
            ]
            self._add(self._symbol(("rule", str(rule.origin.name))), body)
        texts = {symbol for symbol, t in zip(self._of_terminal, self.terminals, strict=True) if not t.empty}
        if self.start not in self._closed(texts):
            raise UnspoolError("no text fits the grammar: every derivation is endless; give it a way to end")
        nothing = self._closed(set())
        self.empty_text = self.start in nothing
        self._unit: dict[int, set[int]] = {}
        self._left: dict[int, set[tuple[int, int]]] = {}
        for whole, parts in self._rules:
            if len(parts) == 2:
                self._left.setdefault(parts[0], set()).add((parts[1], whole))
            # If one part may be empty, the other can remain alone.
            for i, part in enumerate(parts):
                if all(other in nothing for other in parts[:i] + parts[i + 1 :]) and part != whole:
                    self._unit.setdefault(part, set()).add(whole)
        first, last = self._edges(0), self._edges(-1)
        self.first = frozenset(first[self.start])
        follows: list[set[int]] = [set() for _ in self.terminals]
        for part, rules in self._left.items():
            for rest, _ in rules:
                for terminal in last[part]:
                    follows[terminal] |= first[rest]
        self.follows = [frozenset(found) for found in follows]

    def _symbol(self, key: Any) -> int:
        return self._symbols.setdefault(key, len(self._symbols))

    def _add(self, whole: int, body: list[int]) -> None:
        self._rules.append((whole, tuple(body) if len(body) < 3 else (body[0], self._tail(body[1:]))))

    def _tail(self, body: list[int]) -> int:
        """A symbol for the end of a longer body; bodies with the same end share it."""
        key = ("tail", *body)
        known = key in self._symbols
        symbol = self._symbol(key)
        if not known:
            self._add(symbol, body)
        return symbol

    def _closed(self, symbols: set[int]) -> set[int]:
        """The symbols that can be derived from these alone."""
        before = -1
        while before < len(symbols):
            before = len(symbols)
            symbols |= {whole for whole, parts in self._rules if symbols.issuperset(parts)}
        return symbols

    def _edges(self, end: int) -> list[set[int]]:
        """By symbol, the terminals that its texts can begin with (0) or end with (-1)."""
        found: list[set[int]] = [set() for _ in self._symbols]
        for terminal, symbol in enumerate(self._of_terminal):
            found[symbol].add(terminal)
        pairs = [(part, whole) for part, wholes in self._unit.items() for whole in wholes]
        pairs += [((part, rest)[end], whole) for part, rules in self._left.items() for rest, whole in rules]
        size = -1
        while size < (size := sum(map(len, found))):
            for part, whole in pairs:
                found[whole] |= found[part]
        return found

    def spans(self, lexemes: Iterable[tuple[int, int]], behind: Mapping[int, Row]) -> Row:
        """What can be derived from a place on.

        Args:
            lexemes: number of a terminal, and the set of places where its lexemes from here end.
            behind: the spans of those places. All of them are after this one.
        """
        row: Row = {}
        stack = [(self._of_terminal[terminal], ends) for terminal, ends in lexemes]
        while stack:
            symbol, ends = stack.pop()
            known = row.get(symbol, 0)
            ends &= ~known
            if not ends:
                continue
            row[symbol] = known | ends
            stack += [(whole, ends) for whole in self._unit.get(symbol, ())]
            if rules := self._left.get(symbol):
                rows = [behind[place] for place in members(ends) if place in behind]
                for rest, whole in rules:
                    further = 0
                    for after in rows:
                        further |= after.get(rest, 0)
                    if further:
                        stack.append((whole, further))
        return row


def members(places: int) -> Iterator[int]:
    """The numbers in a set."""
    while places:
        lowest = places & -places
        yield lowest.bit_length() - 1
        places ^= lowest
