"""Plain passes over a known text: what contract tests and proofs compare sessions and runs with."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager

from unspool.engine.autoregressive import PREFILL_BLOCK
from unspool.engine.contracts import LanguageModel, Logits, Session
from unspool.engine.tree import TokenTree
from unspool.engine.turns import turn

Rows = Generator[Logits, None, None]


@contextmanager
def prefilled(model: LanguageModel, prompt: Sequence[int]) -> Iterator[Session]:
    """A session with all of ``prompt`` except its last token, prefilled in the loop's own blocks."""
    session = model.open()
    try:
        at, end = 0, len(prompt) - 1
        while at < end:
            block = prompt[at : min(at + PREFILL_BLOCK, at + session.max_depth, end)]
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
            block = text[at : at + min(PREFILL_BLOCK, session.max_depth)]
            yield from scored(model, session, TokenTree.chain(block), range(len(block)))
            at += len(block)
