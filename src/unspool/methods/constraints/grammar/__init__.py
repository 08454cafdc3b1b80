"""``grammar``: text that fits a JSON Schema, a regular expression, a Lark grammar or a list of choices.

llguidance (MIT) matches the grammar on tokens; there is no paper. What it changes about plain decoding: tokens that
cannot lead to a text of the grammar are masked, and so is the end token until the text is complete. Forced
(fast-forward) tokens are drafted at no cost. Guarantee: every text that ends by itself is valid; one cut by the length
limit is the beginning of a valid one. Masking step by step does not sample from the model's distribution conditioned on
the grammar: see ``asap`` and ``cars`` for that.

JSON is written as ``json.dumps`` does, with one space after commas and colons: free white space would leave little to
draft, and small models get lost in it. If the rest of a word is determined, only its usual tokens are allowed, not
every way to spell it. What llguidance reads differently from Python and JSON Schema is rewritten or refused
(``patterns``, ``schema_check``, ``lark_check``); ``json_guard`` adds what a grammar cannot express.

Left out: Lark grammars whose terminals have nothing in common where they follow each other.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unspool.engine.method import CONSTRAINT, BeginConstraint, Case, Example, Method, Needs
from unspool.errors import UnspoolError
from unspool.methods.constraints.grammar.guarded import GuardedMatcher
from unspool.methods.constraints.grammar.json_guard import JsonGuard
from unspool.methods.constraints.grammar.options import (
    DeadEndError,
    GrammarOptions,
    ParseError,
    byte_vocabulary,
    reason,
)
from unspool.methods.resources import Resources
from unspool.models.llguidance import llguidance_vocabulary
from unspool.models.texts import spelled

if TYPE_CHECKING:
    from llguidance import LLTokenizer

__all__ = ["DeadEndError", "GrammarConstraint", "GrammarOptions", "ParseError", "check"]

_ENDLESS = 10_000
"""Forced tokens at the beginning of a grammar from which on it is considered endless."""


def check(options: GrammarOptions) -> None:
    """Refuse a grammar that cannot be used; checked on a vocabulary of bytes, so no model is needed.

    Raises:
        UnspoolError: as ``GrammarConstraint`` does.
    """
    GrammarConstraint(options, byte_vocabulary(), {256})


class GrammarConstraint:
    """Constraint of one sequence.

    Args:
        options: the grammar.
        vocabulary: the tokens, as many as the model has logits.
        eos: tokens that end a text, at least one. They are outside the grammar: allowed where a text is complete.

    Raises:
        UnspoolError: if the grammar cannot be used, or no text fits it.
    """

    def __init__(self, options: GrammarOptions, vocabulary: LLTokenizer, eos: Collection[int]) -> None:
        if not eos:
            raise UnspoolError("a grammar needs an end token, and this model has none; set eos_token_id")
        self._parse = options.parse
        self._vocabulary = vocabulary
        self._size = vocabulary.vocab_size
        self._eos = np.array(sorted(eos))
        # The tokenizer's end token need not be one of this text's; llguidance would allow it at the end.
        self._others = sorted(set(vocabulary.eos_tokens) - set(eos))
        self._ended = False
        self._path: list[int] = []  # drafted tokens that the matcher has consumed after the committed ones
        self._text: list[int] = []  # committed tokens
        matcher, schema = options.matcher(vocabulary), options.prepared
        guard = JsonGuard(vocabulary, schema.names) if schema else None
        self._matcher = GuardedMatcher(matcher, self._size, guard, schema is not None and schema.scarce)
        self._check_some_text_fits()

    def allowed(self, path: Sequence[int]) -> NDArray[np.bool_] | None:
        if self._ended or not self._walk(path):
            return None
        mask = self._matcher.mask()
        if error := self._matcher.get_error():
            raise self._dead_end(reason(error))
        mask[self._others] = False
        mask[self._eos] = self._matcher.is_accepting()
        if not mask.any():
            raise self._dead_end("no token can follow")
        return mask

    def is_allowed(self, path: Sequence[int], token: int) -> bool:
        if self._ended or not self._walk(path):
            return True
        return self._matcher.is_accepting() if token in self._eos else self._follows(token)

    def forced(self) -> Sequence[int]:
        if self._ended:
            return ()
        self._walk(())
        return self._matcher.compute_ff_tokens()

    def must_end(self) -> bool:
        if self._ended:
            return False
        self._walk(())
        # By the text, not the tokens: no mask is computed. The end of a number of 100 digits is left to a pass.
        return self._matcher.is_accepting() and self._matcher.is_stopped()

    def advance(self, tokens: Sequence[int]) -> None:
        if tokens and tokens[-1] in self._eos:
            self._ended, tokens = True, tokens[:-1]
        if not self._walk(tokens):
            raise ValueError(f"{list(tokens)} were committed, which the grammar does not allow")
        self._text += tokens
        self._path.clear()

    def parse(self, text: str) -> Any:
        """The value of a complete text, see ``GrammarOptions.parse``."""
        return self._parse(text)

    def _walk(self, path: Sequence[int]) -> bool:
        """Move the matcher after ``path``. False if the path is not allowed or continues after the end."""
        shared = 0
        while shared < min(len(path), len(self._path)) and path[shared] == self._path[shared]:
            shared += 1
        if len(self._path) > shared:
            self._matcher.rollback(len(self._path) - shared)
            del self._path[shared:]
        for token in path[shared:]:
            # A refused token would leave the matcher in an error state permanently.
            if token in self._eos or not self._follows(token):
                return False
            self._matcher.consume_token(token)
            self._path.append(token)
        return True

    def _follows(self, token: int) -> bool:
        if token in self._others:
            return False
        # The mask has one token where text is forced; the parser itself would accept any spelling.
        forced = self._matcher.compute_ff_tokens()
        return token == forced[0] if forced else self._matcher.validate_tokens([token]) == 1

    def _dead_end(self, why: str) -> DeadEndError:
        return DeadEndError(why, self._vocabulary.decode_str([*self._text, *self._path]))

    def _check_some_text_fits(self) -> None:
        probe = self._matcher.deep_copy()  # an error stays with a matcher
        forced = len(probe.compute_ff_tokens())  # required recursion without another way out
        probe.mask()
        error = probe.get_error()
        if forced >= _ENDLESS or "ff_tokens" in error:
            raise UnspoolError(f"no text of fewer than {_ENDLESS:,} tokens fits the grammar; reduce its repetitions")
        if error and not error.startswith("NoExtension"):
            raise UnspoolError(f"the grammar cannot be used: {reason(error)}")
        if error or not np.any(self.allowed(())):
            raise UnspoolError("no text fits the grammar; loosen it")


def _build(resources: Resources, options: GrammarOptions) -> BeginConstraint:
    assert resources.tokenizer is not None  # see Needs
    vocabulary = spelled(llguidance_vocabulary(resources.tokenizer, resources.model.vocab_size))
    GrammarConstraint(options, vocabulary, resources.eos)  # fail before any work
    return lambda prompt: GrammarConstraint(options, vocabulary, resources.eos)


_REGEX = r"(ab|x=)(co|a|in)*(1|,a){0,3}\n?"

METHOD = Method(
    kind=CONSTRAINT,
    guarantee="valid",
    summary="Text that fits a JSON Schema, a regular expression, a Lark grammar or a list of choices.",
    paper="llguidance (Microsoft), a library; no paper",
    options=GrammarOptions,
    build=_build,
    needs=Needs(tokenizer=True),
    validity="unspool.methods.constraints.grammar.validity",
    case=Case({"regex": _REGEX}, complete=lambda output: re.fullmatch(_REGEX, output) is not None),
    example=Example(
        'unspool generate --choices yes --choices no "Is the sky blue?"',
        """
        import unspool
        from pydantic import BaseModel


        class Person(BaseModel):
            name: str
            age: int


        model = unspool.load()
        person = model.generate("Make up a person.", json_schema=Person).parsed
        """,
    ),
)
