"""``grammar``: text that fits a JSON Schema, a regular expression, a Lark grammar or a list of choices.

llguidance (MIT) walks the grammar over tokens; no paper. What it changes about plain decoding: tokens that cannot go on
to a text of the grammar are left out of every distribution, and the end token is left out until the text is complete.
What must follow anyway is drafted for nothing. Guarantee: every text that ends by itself is valid; one that the length
limit cuts is the beginning of a valid one. Leaving tokens out step by step is not the model's distribution given the
grammar: see ``asap`` and ``cars`` for that.

JSON is written as ``json.dumps`` does, with one space behind commas and colons: white space that is free would leave
little to draft, and small models get lost in it. Where the rest of a word is determined, its usual tokens are the only
ones allowed, not every way to spell it.

Left out: grammars in which no text ever ends are noticed only where that shows at their beginning.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unspool.errors import UnspoolError

if TYPE_CHECKING:
    from llguidance import LLTokenizer

_ENDLESS = 10_000
"""Forced tokens at the beginning of a grammar from which on it is taken to have no end."""


@dataclass(frozen=True)
class GrammarOptions:
    """Exactly one of them is given.

    Attributes:
        json_schema: a JSON Schema as text or mapping, or a pydantic model. Keywords that are not supported are refused.
        regex: a regular expression that the whole text matches; without look-around and back-references.
        grammar: a grammar in llguidance's Lark form, whose start rule is ``start``.
        choices: the texts to choose from.
    """

    json_schema: str | Mapping[str, Any] | type[Any] | None = None
    regex: str | None = None
    grammar: str | None = None
    choices: Sequence[str] = ()

    def __post_init__(self) -> None:
        given = [name for name in ("json_schema", "regex", "grammar") if getattr(self, name) is not None]
        given += ["choices"] if self.choices else []
        if len(given) != 1:
            what = " and ".join(given) or "none"
            raise UnspoolError(f"give one of json_schema, regex, grammar and choices, not {what}")
        if isinstance(self.choices, str) or not all(self.choices):
            raise UnspoolError("choices is a list of texts, none of them empty")

    def compiled(self) -> str:
        """In llguidance's own form.

        Raises:
            UnspoolError: if the schema is not JSON.
        """
        from llguidance import LLMatcher, grammar_from

        if self.regex is not None:
            return LLMatcher.grammar_from_regex(self.regex)
        if self.grammar is not None:
            return LLMatcher.grammar_from_lark(self.grammar)
        if self.choices:
            return str(grammar_from("choice", json.dumps(list(self.choices))))
        spaced = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
        try:
            return LLMatcher.grammar_from_json_schema(json.dumps(self.schema), overrides=spaced)  # type: ignore[arg-type]
        except ValueError as error:
            raise UnspoolError(f"the JSON Schema cannot be used: {error}") from error

    @property
    def schema(self) -> Mapping[str, Any] | bool:
        """The JSON Schema.

        Raises:
            UnspoolError: if it is not JSON.
        """
        given: Any = self.json_schema
        if isinstance(given, str):
            try:
                given = json.loads(given)
            except json.JSONDecodeError as error:
                raise UnspoolError(f"the JSON Schema is not JSON: {error}") from error
        elif hasattr(given, "model_json_schema"):
            given = given.model_json_schema()
        if not isinstance(given, Mapping | bool):
            raise UnspoolError('a JSON Schema is an object; write for example {"type": "object"}')
        return given

    def parse(self, text: str) -> Any:
        """What a complete text says: JSON parsed, by the pydantic model if there is one; else the text."""
        if self.json_schema is None:
            return text
        if hasattr(self.json_schema, "model_validate_json"):
            return self.json_schema.model_validate_json(text)
        return json.loads(text)


class GrammarConstraint:
    """Constraint of one sequence.

    Args:
        options: the grammar.
        vocabulary: the tokens, as many as the model has logits.
        eos: tokens that end a text, at least one. They stand outside of the grammar: allowed where a text is complete.

    Raises:
        UnspoolError: if llguidance cannot use the grammar, or no text fits it.
    """

    def __init__(self, options: GrammarOptions, vocabulary: LLTokenizer, eos: Collection[int]) -> None:
        from llguidance import LLMatcher

        if not eos:
            raise UnspoolError("a grammar needs an end token, and this model has none; set eos_token_id")
        grammar = options.compiled()
        failed, messages = LLMatcher.validate_grammar_with_warnings(grammar, vocabulary)
        if failed:
            raise UnspoolError(f"the grammar cannot be used: {' '.join(messages[0].split())}")
        self._parse = options.parse
        self._size = vocabulary.vocab_size
        self._eos = np.array(sorted(eos))
        # What the tokenizer calls an end need not be one of this text's; llguidance would allow it at the end.
        self._others = sorted(set(vocabulary.eos_tokens) - set(eos))
        self._ended = False
        self._path: list[int] = []  # drafted tokens that the matcher has consumed behind the committed ones
        self._matcher = LLMatcher(vocabulary, grammar, log_level=0)
        self._check_some_text_fits()

    def allowed(self, path: Sequence[int]) -> NDArray[np.bool_] | None:
        if self._ended or not self._walk(path):
            return None
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        self._check_state()
        # The bits are filled up to whole words.
        mask = np.unpackbits(bits, count=self._size, bitorder="little").view(np.bool_)
        mask[self._others] = False
        mask[self._eos] = self._matcher.is_accepting()
        return mask

    def permits(self, path: Sequence[int], token: int) -> bool:
        if self._ended or not self._walk(path):
            return True
        return self._matcher.is_accepting() if token in self._eos else self._follows(token)

    def forced(self) -> Sequence[int]:
        if self._ended:
            return ()
        self._walk(())
        return self._matcher.compute_ff_tokens()

    def advance(self, tokens: Sequence[int]) -> None:
        if tokens and tokens[-1] in self._eos:
            self._ended, tokens = True, tokens[:-1]
        if not self._walk(tokens):
            raise ValueError(f"{list(tokens)} were committed, which the grammar does not allow")
        self._path.clear()

    def parse(self, text: str) -> Any:
        """What a complete text says, see ``GrammarOptions.parse``."""
        return self._parse(text)

    def _walk(self, path: Sequence[int]) -> bool:
        """Move the matcher behind ``path``. False if the path is not allowed or goes on behind the end."""
        shared = 0
        while shared < min(len(path), len(self._path)) and path[shared] == self._path[shared]:
            shared += 1
        if len(self._path) > shared:
            self._matcher.rollback(len(self._path) - shared)
            del self._path[shared:]
        for token in path[shared:]:
            # A token that is refused would leave the matcher in an error state for good.
            if token in self._eos or not self._follows(token):
                return False
            self._matcher.consume_token(token)
            self._path.append(token)
        return True

    def _follows(self, token: int) -> bool:
        if token in self._others:
            return False
        # The mask holds one token where text is forced; the parser itself would take any spelling.
        forced = self._matcher.compute_ff_tokens()
        return token == forced[0] if forced else self._matcher.validate_tokens([token]) == 1

    def _check_state(self) -> None:
        if self._matcher.is_error():
            first = self._matcher.get_error().strip().splitlines()[0]
            raise UnspoolError(f"the grammar is too complex: {first}; simplify it")

    def _check_some_text_fits(self) -> None:
        probe = self._matcher.deep_copy()  # an error stays with a matcher
        endless = len(probe.compute_ff_tokens()) >= _ENDLESS  # required recursion without another way out
        probe.compute_bitmask()
        stuck = probe.get_error().startswith("NoExtension") or "ff_tokens" in probe.get_error()
        if endless or stuck or not np.any(self.allowed(())):
            raise UnspoolError("no text fits the grammar; loosen it")
