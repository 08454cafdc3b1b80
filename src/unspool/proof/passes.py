"""Plain passes over a known text and the scores that its tokens were chosen by, as references for proofs."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unspool.engine import noise
from unspool.engine.autoregressive import PREFILL_BLOCK
from unspool.engine.contracts import LanguageModel, Logits, Session
from unspool.engine.options import GenerationOptions
from unspool.engine.tree import TokenTree
from unspool.engine.turns import turn
from unspool.methods.shaping import _built_in as shaping

Row = NDArray[np.float64]
Rows = Generator[Logits, None, None]


@contextmanager
def prefilled(model: LanguageModel, prompt: Sequence[int]) -> Iterator[Session]:
    """A session with all of ``prompt`` except its last token, prefilled in the loop's own blocks."""
    session = model.open()
    try:
        at, end = 0, len(prompt) - 1
        while at < end:
            block = prompt[at : min(at + PREFILL_BLOCK, at + session.room, end)]
            store(model, session, block)
            at += len(block)
        yield session
    finally:
        session.close()


def store(model: LanguageModel, session: Session, tokens: Sequence[int]) -> None:
    """Put tokens into the cache in one pass."""
    with turn(model):
        session.score(TokenTree.chain(tokens), rows=())
        session.commit(range(len(tokens)))


def scored(model: LanguageModel, session: Session, tree: TokenTree, kept: Sequence[int] | None = None) -> Logits:
    """Logits [nodes, vocabulary] of one pass, as a copy. Takes the model's turn for it.

    Args:
        kept: nodes to commit; None: none.
    """
    with turn(model):
        logits: Logits = session.score(tree).logits.copy()
        if kept is not None:
            session.commit(kept)
    return logits


def one_by_one(model: LanguageModel, prompt: Sequence[int], output: Sequence[int]) -> Rows:
    """Raw logits [vocabulary] that decide each token of ``output``, from single-node passes, as in plain decoding."""
    with prefilled(model, prompt) as session:
        for token in (*prompt[-1:], *output[:-1]):
            yield scored(model, session, TokenTree.chain([token]), [0])[0]


def at_once(model: LanguageModel, prompt: Sequence[int], output: Sequence[int]) -> Rows:
    """The same, from passes over all tokens together, in prefill blocks."""
    with prefilled(model, prompt) as session:
        text = [*prompt[-1:], *output[:-1]]
        at = 0
        while at < len(text):
            block = text[at : at + min(PREFILL_BLOCK, session.room)]
            yield from scored(model, session, TokenTree.chain(block), range(len(block)))
            at += len(block)


class Scale:
    """Turns raw logits into the scores whose maximum plain decoding takes.

    Args:
        temperature: 0 is greedy; above 0, the noise of seed and position is added.
    """

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature
        self._shapers = shaping.build(GenerationOptions(temperature=temperature))

    def shaped(self, row: Logits) -> Row:
        """Logits [vocabulary] divided by the temperature."""
        for shaper in self._shapers:
            row = shaper(np.empty(0, dtype=np.int64), row)
        return row.astype(np.float64)

    def scores(self, row: Logits, seed: int, position: int) -> Row:
        """Scores [vocabulary] of the token at the absolute ``position``."""
        scores = self.shaped(row)
        if self.temperature:
            scores += noise.gumbel(seed, position, len(scores))
        return scores


def runner_up(scores: NDArray[Any], token: int) -> int:
    """The best token besides ``token``."""
    others = scores.copy()
    others[token] = -np.inf
    return int(others.argmax())
