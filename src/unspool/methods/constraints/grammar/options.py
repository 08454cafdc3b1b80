"""The options of ``grammar``: checked, compiled, and used to parse a finished text."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, NoReturn

from unspool.errors import UnspoolError
from unspool.methods.constraints.grammar.characters import one_of
from unspool.methods.constraints.grammar.lark_check import JSON_STYLE, prepared_lark
from unspool.methods.constraints.grammar.patterns import whole
from unspool.methods.constraints.grammar.schema_check import Prepared, prepared
from unspool.storage.text_files import parse_json, unique

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLParserLimits, LLTokenizer

_PROBES = 500
"""Most terminals of a grammar that are tested one by one."""


class ParseError(UnspoolError):
    """A complete text cannot be parsed: a validator of a pydantic model refuses it, or it is not strict JSON."""


class DeadEndError(UnspoolError):
    """A grammar allows no token in the middle of a text.

    Attributes:
        text: what was decoded so far.
    """

    def __init__(self, why: str, text: str) -> None:
        super().__init__(f"the grammar ends here: {why}; the text so far is {text!r}")
        self.text = text


@dataclass(frozen=True)
class GrammarOptions:
    """Exactly one option is given.

    Attributes:
        json_schema: a JSON Schema as text or mapping, or a pydantic model. Keywords that are not supported are refused.
        regex: a regular expression of Python that the whole text matches; without look-around and back-references.
        grammar: a grammar in llguidance's Lark form, whose start rule is ``start``.
        choices: the texts to choose from. One that spells a special token is plain text, not that token.
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
        if isinstance(self.choices, str) or not all(isinstance(text, str) and text for text in self.choices):
            raise UnspoolError("choices must be a list of texts, none of them empty")
        for name in ("regex", "grammar"):
            if not isinstance(getattr(self, name), str | None):
                raise UnspoolError(f"{name} must be a text, not {getattr(self, name)!r}")
        for text in (self.regex, self.grammar, *self.choices):
            _check_unicode(text or "")

    def compiled(self) -> str:
        """The grammar in llguidance's own form.

        Raises:
            UnspoolError: if it cannot be used, as far as this is known without a vocabulary.
        """
        return self._compiled[0]

    @property
    def prepared(self) -> Prepared | None:
        """The prepared JSON Schema; None if there is none."""
        return self._compiled[1]

    @cached_property
    def _compiled(self) -> tuple[str, Prepared | None]:
        from llguidance import LLMatcher

        if self.regex is not None:
            return LLMatcher.grammar_from_regex(whole(self.regex)), None
        if self.grammar is not None:
            ready, parts = prepared_lark(self.grammar)
            for what, alone in parts[:_PROBES]:
                probe = LLMatcher(byte_vocabulary(), LLMatcher.grammar_from_lark(alone), log_level=0)
                if not probe.is_error():  # else the error is reported for the whole grammar
                    probe.compute_bitmask()
                    if probe.get_error().startswith("NoExtension"):
                        raise UnspoolError(f"no text fits {what} of the grammar; loosen it")
            return LLMatcher.grammar_from_lark(ready), None
        if self.choices:
            return LLMatcher.grammar_from_regex(one_of(self.choices)), None
        given = self.schema
        if isinstance(given, bool):
            if not given:
                raise UnspoolError("no text fits the schema false; write for example {}")
            given = {}
        schema = prepared(given)
        try:
            return LLMatcher.grammar_from_json_schema(json.dumps(schema.schema), overrides=JSON_STYLE), schema  # type: ignore[arg-type]
        except ValueError as error:
            raise UnspoolError(f"the JSON Schema cannot be used: {error}") from error

    @property
    def schema(self) -> Mapping[str, Any] | bool:
        """The JSON Schema as given.

        Raises:
            UnspoolError: if it is not JSON, or has a key twice.
        """
        given: Any = self.json_schema
        if isinstance(given, str):
            try:
                given = parse_json(given)
            except ValueError as error:
                raise UnspoolError(f"the JSON Schema cannot be read: {error}") from error
        elif hasattr(given, "model_json_schema"):
            try:
                given = given.model_json_schema()
            except Exception as error:  # pydantic's own classes, and those of the model's author
                raise UnspoolError(f"the pydantic model has no JSON Schema: {_line(error)}") from error
        if not isinstance(given, Mapping | bool):
            raise UnspoolError('a JSON Schema is an object; write for example {"type": "object"}')
        return given

    def matcher(self, vocabulary: LLTokenizer) -> LLMatcher:
        """A matcher at the beginning of a text. The grammar is compiled once per vocabulary.

        Raises:
            UnspoolError: if llguidance cannot use the grammar, or warns that it would leave something out.
        """
        from llguidance import LLMatcher

        made: dict[int, tuple[LLTokenizer, LLMatcher]] = self.__dict__.setdefault("_matchers", {})
        if id(vocabulary) not in made:
            grammar, limits = self.compiled(), _limits()
            matcher = LLMatcher(vocabulary, grammar, log_level=0, limits=limits)
            messages = matcher.get_grammar_warnings()
            if matcher.is_error():
                _, messages = LLMatcher.validate_grammar_with_warnings(grammar, vocabulary, limits=limits)
            if messages:
                raise UnspoolError(f"the grammar cannot be used: {' '.join(messages[0].split())}")
            made.clear()
            made[id(vocabulary)] = vocabulary, matcher
        return made[id(vocabulary)][1].deep_copy()

    def parse(self, text: str) -> Any:
        """The value of a complete text: parsed JSON, by the pydantic model if there is one; else the text.

        Raises:
            ParseError: with the reason in one line.
        """
        if self.json_schema is None:
            return text
        read = getattr(self.json_schema, "model_validate_json", strict_json)
        try:
            return read(text)
        except Exception as error:  # a model's validators may raise anything
            raise ParseError(_line(error)) from error


def strict_json(text: str) -> Any:
    """``json.loads`` without its extensions of JSON: duplicate names, NaN, and numbers that are read as infinity.

    Raises:
        ValueError: with the reason.
    """
    return json.loads(text, object_pairs_hook=unique, parse_constant=_no_number, parse_float=_finite)


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    if math.isinf(value := float(text)):
        raise ValueError(f"the number {text} is too large")
    return value


def reason(error: str) -> str:
    """The meaning of an error of llguidance's, in one line."""
    first = error.strip().splitlines()[0]
    if first.startswith("NoExtension"):
        return "no token can follow"
    if "Current row has" in first:
        return f"too many alternatives at one place ({first.split('Current row has ')[1].split(';')[0]})"
    return f"it is too complex ({first})"


@lru_cache(maxsize=1)
def byte_vocabulary() -> LLTokenizer:
    """A token for each byte, and 256, which ends a text: enough to check whether a grammar can be used."""
    from llguidance import LLTokenizer, TokenizerWrapper

    return LLTokenizer(TokenizerWrapper(_Bytes()), n_vocab=257)


class _Bytes:
    """The part of a tokenizer that llguidance reads."""

    eos_token_id = 256
    bos_token_id = unk_token_id = None
    special_token_ids = (256,)
    tokens = (*(bytes([i]) for i in range(256)), b"\xff<end>")

    def __call__(self, text: str | bytes) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)


def _limits() -> LLParserLimits:
    """Enough for 50,000 choices; anything larger fails before any work."""
    from llguidance import LLParserLimits

    return LLParserLimits(
        max_items_in_row=100_000,
        initial_lexer_fuel=200_000_000,
        step_max_items=2_000_000,
        max_grammar_size=10_000_000,
        verbose_errors=False,
    )


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UnspoolError(f"{text[:40]!r} contains half a character, which is not text: {error.reason}") from error


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
