"""A model that is a table, over tokens that cut characters in two, and the same with what backends may differ in:
sections of its cache, block_max of its rows, hidden states."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer as Fast
from tokenizers import decoders, models, pre_tokenizers

from unspool.backends.toy import ToyModel, ToySession
from unspool.decoding.model import Model
from unspool.engine.contracts import Ability, Scores
from unspool.engine.cost import CostCurve, PassCosts
from unspool.engine.taps import OUTPUT, Taps
from unspool.engine.tree import TokenTree
from unspool.models.tokenizer import Tokenizer

EOS = 0
_LETTERS = b"abcx=1, .()\n"
RAW = (b"<end>", *(bytes([letter]) for letter in _LETTERS), b"ab", b"co", b"x(", b"a=")
# Halves of an e with an accent, thirds of the euro sign.
RAW += (b"\xc3", b"\xa9", b"\xe2", b"\x82", b"\xac", b"\xe2\x82", b"\xa9a")
SIZE = len(RAW)


def text_of(tokens: Sequence[int]) -> str:
    """The text of ids by their bytes; special tokens are left out."""
    return b"".join(RAW[token] for token in tokens if token != EOS).decode("utf-8", "replace")


def _byte_letters() -> dict[int, str]:
    """The letter that byte-level vocabularies write for each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


@cache
def tokenizer() -> Tokenizer:
    """The tokenizer of ``RAW``, from files as models have them."""
    letters = _byte_letters()
    vocabulary = {"<end>": 0} | {"".join(letters[b] for b in raw): i for i, raw in enumerate(RAW) if i}
    fast = Fast(models.BPE(vocabulary, []))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    fast.decoder = decoders.ByteLevel()
    fast.add_special_tokens(["<end>"])
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        fast.save(str(directory / "tokenizer.json"))
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<end>"}
        (directory / "tokenizer_config.json").write_text(json.dumps(config))
        made = Tokenizer(directory)
    assert made.vocab_size == SIZE
    return made


class Table(ToyModel):
    """A table of probabilities after the newest ``order`` tokens.

    Args:
        table: [SIZE + 1, ..., SIZE].
        section: a pass is at most as deep as the cache has room up to the next multiple; 0: no bound.
        block_max: whether scores carry the block_max of pairs of tokens.
        hidden: whether sessions give hidden states: one-hot rows of the newest token.
    """

    def __init__(
        self, table: np.ndarray, max_length: int, section: int = 0, block_max: bool = False, hidden: bool = False
    ):
        self.table = table / table.sum(axis=-1, keepdims=True)
        self.eos_token_id = EOS
        self._max_length = max_length
        with np.errstate(divide="ignore"):
            self._logits = np.log(self.table)
        self.section, self.block_max, self.hidden = section, block_max, hidden

    @classmethod
    def drawn(
        cls,
        seed: int,
        order: int,
        steep: float,
        ends: float,
        zeros: float,
        max_length: int,
        section: int,
        block_max: bool,
    ) -> Table:
        """A steep one, mostly of the newest token, whose texts repeat themselves.

        Args:
            ends: what the end of text weighs.
            zeros: share of tokens that cannot follow.
        """
        rng = np.random.default_rng(seed)
        weights = 0.6 * steep * rng.standard_normal((SIZE + 1,) * order + (SIZE,))
        weights = np.exp(weights + steep * rng.standard_normal((SIZE + 1, SIZE))) + 1e-3
        if zeros:
            weights[rng.random(weights.shape) < zeros] = 0.0
            weights[..., [3, 5]] += 1e-9
        weights[..., EOS] *= ends
        return cls(weights, max_length, section, block_max)

    def near(self, noise: float, seed: int, max_length: int, section: int) -> Table:
        """A draft model at this distance."""
        factor = np.exp(noise * np.random.default_rng(seed).standard_normal(self.table.shape))
        return Table(self.table * factor, max_length, section, hidden=True)

    @property
    def abilities(self) -> frozenset[Ability]:
        return frozenset({Ability.HIDDEN_STATES}) if self.hidden else frozenset()

    def row(self, tokens: Sequence[int]) -> np.ndarray:
        """Logits after a text, from the table itself."""
        newest = [token + 1 for token in tokens[-self.order :]]
        return self._logits[(0,) * (self.order - len(newest)) + tuple(newest)]

    def open(self, taps: Taps | None = None) -> TableSession:
        return TableSession(self)


class TableSession(ToySession):
    model: Table

    @property
    def max_depth(self) -> int:
        section = self.model.section
        return min(super().max_depth, section - self.length % section) if section else super().max_depth

    def score(self, tree: TokenTree, rows: Sequence[int] | None = None) -> Scores:
        scores = super().score(tree, rows)
        hidden = np.eye(SIZE, dtype=np.float32)[[tree.tokens[row] for row in scores.rows]]
        block_max = (
            scores.logits.reshape(len(scores.logits), SIZE // 2, 2).max(axis=2) if self.model.block_max else None
        )
        return Scores(scores.logits, scores.rows, scores.ms, {OUTPUT: hidden} if self.model.hidden else None, block_max)


def model(target: Table, draft: Table | None = None, switch_ms: float = 0.0) -> Model:
    """A model with its draft model, under a cost curve of its own."""
    made = Model("table", "table", target, tokenizer(), [EOS])
    if draft is not None:
        made.assistant = Model("draft", "draft", draft, tokenizer(), [EOS])
    curve = CostCurve((1, 4, 8, 16, 64), (32,), ((1.0, 1.02, 1.1, 1.5, 4.0),), switch_ms)
    made._costs = PassCosts(curve)
    return made
