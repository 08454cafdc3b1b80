"""``rpg``: Rethinking Repetition Problems of LLMs in Code Generation (2025).

Code that loops seldom repeats its text; it repeats its structure: one more ``elif`` with the next number, the same
function under a new name. R is the sequence of grammar symbols of the text X. If R ends with a block and n equal blocks
come directly before it, the next copy would begin with the *critical token*, the one that began the last copy. Its
probability is multiplied by decay^n and the distribution renormalised. If that token begins a statement and the text is
a complete program, the probability of the end of the text is divided by eos_decay^n in the same way. The same is done
for blocks of X itself (content repetition). Without a repetition the logits are unchanged.

Guarantee: ``lossy``; no token is ever ruled out. The shaper is a function of the text alone, so it works with every
drafter.

The authors' code departs from the paper; this follows the paper. The code multiplies logits, which helps the critical
token if its logit is negative; it counts every structural repetition as the first; it compares whole lines, and only if
their number is a multiple of the block's. Symbols are tree-sitter's terminals of Python instead of handwritten rules; a
symbol belongs to a terminal, so no token inside a name or a string is critical. White space is never penalised: all
continuations share it, and it would change the depth of the block.

Left out: languages other than Python; incremental parsing (``structure``): a node costs some milliseconds per thousand
tokens of text, prompt included. The prompt counts, as in the paper. Structure that is right to repeat, such as a table,
is penalised too. With sampling, temperature is applied later: the factor is then decay^(n / temperature).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from math import log
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from unspool.engine.contracts import Logits, Shaper
from unspool.engine.method import SHAPER, Case, Method, Needs
from unspool.errors import UnspoolError
from unspool.methods.resources import Resources
from unspool.methods.shaping.rpg import structure
from unspool.models.llguidance import llguidance_vocabulary

if TYPE_CHECKING:
    from llguidance import LLTokenizer

STATEMENTS = frozenset(
    {
        *("assert", "if", "elif", "else", "print", "def", "#", "try", "while", "import", "from", "for", "class"),
        *("'''", '"""'),
    }
)
"""Texts of critical tokens whose repetition should end the program; a line break is another one."""


@dataclass(frozen=True)
class RPGOptions:
    """The paper's defaults.

    Attributes:
        decay: factor on the probability of the critical token for each repetition, in (0, 1].
        eos_decay: divisor of the probability of the end of the text for each repetition, in (0, 1]; 1: no change.
    """

    decay: float = 0.9
    eos_decay: float = 0.8

    def __post_init__(self) -> None:
        for name, value in (("decay", self.decay), ("eos_decay", self.eos_decay)):
            if not 0 < value <= 1:
                raise UnspoolError(f"{name} must lie in (0, 1], not {value}")


class RPG:
    """The shaper.

    Args:
        options: see ``RPGOptions``.
        piece: returns the bytes that a token adds to the text; empty for special tokens.
        eos: ids that end the text.

    Raises:
        UnspoolError: if tree-sitter is not installed.
    """

    def __init__(self, options: RPGOptions, piece: Callable[[int], bytes], eos: Iterable[int]) -> None:
        structure.parser()
        self._options = options
        self._piece = piece
        self._eos = frozenset(eos)
        self._pieces: dict[int, bytes] = {}

    def __call__(self, tokens: NDArray[np.int64], logits: Logits) -> Logits:
        ids: list[int] = tokens.tolist()
        pieces = [self._text(token) for token in ids]
        leaves, complete = structure.parse(b"".join(pieces))
        copies: dict[int, int] = {}
        for token, n in (*_content(ids), *_structural(ids, pieces, leaves)):
            copies[token] = max(n, copies.get(token, 0))
        if not copies:
            return logits
        shaped = logits.copy()
        ending = 0
        for token, n in copies.items():
            text = self._text(token).decode("utf-8", "replace")
            # A model may embed more tokens than it has logits for.
            if text.strip() and token < len(shaped):
                shaped[token] += n * log(self._options.decay)
            if complete and (text.strip() in STATEMENTS or (text.isspace() and "\n" in text)):
                ending = max(ending, n)
        for token in self._eos:
            shaped[token] -= ending * log(self._options.eos_decay)
        return cast(Logits, shaped)

    def _text(self, token: int) -> bytes:
        if token not in self._pieces:
            self._pieces[token] = self._piece(token)
        return self._pieces[token]


def build(options: RPGOptions, vocabulary: LLTokenizer, eos: Iterable[int]) -> RPG:
    """The shaper for a vocabulary as llguidance reads it."""

    def piece(token: int) -> bytes:
        return b"" if vocabulary.is_special_token(token) else vocabulary.decode_bytes([token])

    return RPG(options, piece, eos)


def _content(ids: list[int]) -> Iterator[tuple[int, int]]:
    """The critical token of a block of tokens, and the number of repetitions."""
    size, n = structure.tail_repeat(ids)
    if n:
        yield ids[-size], n


def _structural(ids: list[int], pieces: list[bytes], leaves: list[structure.Leaf]) -> Iterator[tuple[int, int]]:
    """The same for a block of grammar symbols, where the next token may begin a copy."""
    size, n = structure.tail_repeat([leaf.symbol for leaf in leaves])
    if not n:
        return
    text, ends = b"".join(pieces), list(accumulate(map(len, pieces)))
    before, first, last = leaves[-size - 1], leaves[-size], leaves[-1]
    critical = next(i for i, end in enumerate(ends) if end > first.start)
    begin = ends[critical] - len(pieces[critical])
    # The gap between copies must be complete, up to the very token: a copy cannot begin sooner.
    if begin >= before.end and _gap(text[before.end : begin]) == _gap(text[last.end :]):
        yield ids[critical], n


def _gap(space: bytes) -> tuple[bytes, bytes]:
    """Whether a new line begins, and the space before the next symbol on its line; empty lines are not grammar."""
    _, line, indentation = space.rpartition(b"\n")
    return line, indentation


def _build(resources: Resources, options: RPGOptions) -> Shaper:
    assert resources.tokenizer is not None  # see Needs
    return build(options, llguidance_vocabulary(resources.tokenizer, resources.model.vocab_size), resources.eos)


METHOD = Method(
    kind=SHAPER,
    guarantee="lossy",
    summary="Lowers the probability of another copy of a repeated grammar structure of Python, more with each copy.",
    paper="Rethinking Repetition Problems of LLMs in Code Generation (2025)",
    options=RPGOptions,
    build=_build,
    needs=Needs(tokenizer=True, extra="code"),
    case=Case({"decay": 0.01}, ("x=1\na=1\nb=1\n", "ab,ab,ab,ab")),
)
