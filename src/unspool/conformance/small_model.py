"""A model with the public interface that runs in milliseconds and counts its passes.

Its tokens spell fragments of Python, so that grammars, monitors and shapers of code apply to its texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tokenizers import Tokenizer as Fast
from tokenizers import decoders, models, pre_tokenizers

from unspool.backends.toy import ToyModel, ToySession
from unspool.decoding.model import Model
from unspool.engine.contracts import Ability, Scores, Session
from unspool.engine.cost import CostCurve, PassCosts
from unspool.engine.taps import Taps
from unspool.engine.tree import TokenTree
from unspool.methods import Resources
from unspool.models.tokenizer import Tokenizer

EOS = 0
PIECES = ("<end>", *"abcountidex1=, .()\n", "ab", "co", "nt", "in", ".c", "x(")
# Flat up to four nodes, then a node costs a twentieth of a pass: auto buys some and not all.
CURVE = CostCurve((1, 4, 64), (32,), ((1.0, 1.0, 4.0),))


class Pieces(Tokenizer):
    """``PIECES`` as a byte-level vocabulary."""

    def __init__(self) -> None:
        letters = str.maketrans({" ": "Ġ", "\n": "Ċ"})
        vocabulary = {piece.translate(letters): i for i, piece in enumerate(PIECES)}
        merges = [(piece[0], piece[1:]) for piece in PIECES[1:] if len(piece) > 1]
        self._fast = Fast(models.BPE(vocabulary, merges))
        self._fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        self._fast.decoder = decoders.ByteLevel()
        self._fast.add_special_tokens(["<end>"])
        self._config: dict[str, Any] = {}
        self._template = None


class CountedSession(ToySession):
    """A session that tells its model what it scores, and whose cache can be edited."""

    model: CountedModel

    def score(self, tree: TokenTree, rows: Sequence[int] | None = None) -> Scores:
        self.model.count(len(tree), wanted=rows is None or len(rows) > 0)
        return super().score(tree, rows)

    def splice(self, source: CountedSession, start: int, stop: int, *, rotate: bool = True) -> None:
        shift = self.length - start if rotate else 0
        self.cache += [(token, position + shift) for token, position in source.cache[start:stop]]


class CountedModel(ToyModel):
    """A toy model with as many tokens as ``PIECES``.

    Attributes:
        passes: calls that asked for logits; sessions that are scored together are one.
        nodes: tokens that were scored in them.
        filled: tokens that went into a cache without.
    """

    abilities = frozenset({Ability.CACHE_EDIT})

    def __init__(self, seed: int = 0, widths: tuple[int, ...] = ()) -> None:
        size, rng = len(PIECES), np.random.default_rng(seed)
        # Steep and mostly of the newest token, so that texts repeat themselves and drafts are sometimes right.
        newest, both = rng.standard_normal((size + 1, size)), rng.standard_normal((size + 1, size + 1, size))
        weights = np.exp(2 * newest + both / 2) + 0.01
        weights[..., EOS] /= 2
        self.table = weights / weights.sum(axis=-1, keepdims=True)
        self.eos_token_id = EOS
        self._max_length = 512
        self._logits = np.log(self.table)
        self._widths = widths
        self._together = False
        self.passes = self.nodes = self.filled = 0

    @property
    def widths(self) -> tuple[int, ...]:
        return self._widths

    def open(self, taps: Taps | None = None) -> CountedSession:
        return CountedSession(self)

    def score_many(
        self,
        sessions: Sequence[Session],
        trees: Sequence[TokenTree],
        rows: Sequence[Sequence[int] | None] | None = None,
    ) -> list[Scores]:
        self.passes += 1
        self._together = True
        try:
            return super().score_many(sessions, trees, rows)
        finally:
            self._together = False

    def count(self, nodes: int, wanted: bool) -> None:
        """A tree was scored; ``wanted``: for its logits."""
        if wanted:
            self.nodes += nodes
            self.passes += not self._together
        else:
            self.filled += nodes


def load(seed: int = 0, language_model: ToyModel | None = None) -> Model:
    """A new model, as from ``unspool.load``."""
    made = Model("small", "small", language_model or CountedModel(seed), TOKENIZER, [EOS])
    made._costs = PassCosts(CURVE)
    return made


TOKENIZER = Pieces()


def resources(model: Model) -> Resources:
    """What a method is built from for a request to this model."""
    return model.resources()
