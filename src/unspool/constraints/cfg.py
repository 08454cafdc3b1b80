"""Context-free grammars over characters, in the form that the emptiness search of ``cfg_canvas`` reads.

Grammars are written for lark (EBNF with regular expressions as terminals, ``%ignore`` for what may stand between
lexemes), which expands them; interegular turns terminals into automata. Rules get one of the shapes A -> t, A -> B,
A -> B C and A -> nothing. Unit and empty rules are kept, so the grammar grows linearly, which Chomsky's form would not.

Lexemes need not be as long as possible, and a keyword is also an identifier where the grammar allows both: text is
accepted if it can be cut into lexemes in some way. Grammars in which that is too much must say so in their terminals.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from unspool.errors import UnspoolError

Triple = tuple[int, int, int]


class Terminal:
    """The automaton of a terminal. States from which no match can be reached do not exist.

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

    def accepts(self, state: int) -> bool:
        """Whether the text that led here is a lexeme."""
        return state in self._fsm.finals

    def step(self, state: int, char: str) -> int | None:
        """The state after one more character, None where no lexeme goes on like that."""
        after = self._fsm.map.get(state, {}).get(self._fsm.alphabet[char])
        return after if after in self._live else None


class Grammar:
    """A grammar in the four shapes. Symbols are numbers.

    Attributes:
        start: the start symbol.
        terminals: by number.
        ignored: what may stand before and behind every lexeme.
        unit: by B, the A of rules A -> B.
        left: by B, the (C, A) of rules A -> B C.
        right: by C, the (B, A) of rules A -> B C.
        term: by number of a terminal t, the A of rules A -> t.
        empty: the A of rules A -> nothing.

    Raises:
        UnspoolError: if the text is no grammar, or no text at all fits it.
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
        self.unit: dict[int, list[int]] = {}
        self.left: dict[int, list[tuple[int, int]]] = {}
        self.right: dict[int, list[tuple[int, int]]] = {}
        self.term: list[list[int]] = [[self._symbol(("terminal", i))] for i in range(len(self.terminals))]
        self.empty: list[int] = []
        self.start = self._symbol(("rule", start))
        for rule in parsed.rules:
            body = [
                self._symbol(("terminal", numbers[s.name]) if s.is_term else ("rule", str(s.name)))
                for s in rule.expansion
            ]
            self._add(self._symbol(("rule", str(rule.origin.name))), body)
        if not self._has_text():
            raise UnspoolError("no text fits the grammar: every derivation goes on for ever; give it a way to end")

    def _symbol(self, key: Any) -> int:
        return self._symbols.setdefault(key, len(self._symbols))

    def _add(self, symbol: int, body: list[int]) -> None:
        if not body:
            self.empty.append(symbol)
        elif len(body) == 1:
            self.unit.setdefault(body[0], []).append(symbol)
        else:
            first, rest = body[0], body[1] if len(body) == 2 else self._tail(body[1:])
            self.left.setdefault(first, []).append((rest, symbol))
            self.right.setdefault(rest, []).append((first, symbol))

    def _tail(self, body: list[int]) -> int:
        """A symbol for the end of a longer body, one for all bodies that end alike."""
        key = ("tail", *body)
        known = key in self._symbols
        symbol = self._symbol(key)
        if not known:
            self._add(symbol, body)
        return symbol

    def _has_text(self) -> bool:
        seeds = [(0, i, 0) for i, terminal in enumerate(self.terminals) if not terminal.empty]
        return self.derives(seeds, [0], 0, {0})

    def derives(self, seeds: Iterable[Triple], states: Iterable[int], start: int, finals: set[int]) -> bool:
        """Whether the start symbol derives a path of an automaton from ``start`` to one of ``finals``.

        The grammar of the intersection is cubic in the states and never built: what it can generate is searched bottom
        up. A triple (p, A, q) says that A derives some text that leads from state p to state q.

        Args:
            seeds: (p, number of a terminal, q) for every lexeme that leads from p to q.
            states: all of them, for rules that derive nothing.
        """
        seen: set[Triple] = set()
        by_start: dict[tuple[int, int], list[int]] = {}
        by_end: dict[tuple[int, int], list[int]] = {}
        stack = [(p, symbol, q) for p, terminal, q in seeds for symbol in self.term[terminal]]
        stack += [(p, symbol, p) for p in states for symbol in self.empty]
        while stack:
            triple = stack.pop()
            if triple in seen:
                continue
            seen.add(triple)
            p, symbol, q = triple
            if symbol == self.start and p == start and q in finals:
                return True
            by_start.setdefault((symbol, p), []).append(q)
            by_end.setdefault((symbol, q), []).append(p)
            stack += [(p, whole, q) for whole in self.unit.get(symbol, ())]
            for after, whole in self.left.get(symbol, ()):
                stack += [(p, whole, end) for end in by_start.get((after, q), ())]
            for before, whole in self.right.get(symbol, ()):
                stack += [(begin, whole, q) for begin in by_end.get((before, p), ())]
        return False
