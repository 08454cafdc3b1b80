"""Text that is only to be read goes into the cache in blocks."""

from __future__ import annotations

from collections.abc import Sequence

from unspool.engine.contracts import Session
from unspool.engine.tree import TokenTree

PREFILL_BLOCK = 128
"""Prompt tokens per pass: large enough to keep the processor busy, small enough to bound the memory of a pass, and the
time that a long prompt holds up the other rows of a batch."""


def extend(session: Session, tokens: Sequence[int]) -> int:
    """Put more tokens into the cache, as a prefill does; gives the number of passes that it took."""
    at = passes = 0
    while at < len(tokens):
        at += store(session, tokens[at:])
        passes += 1
    return passes


def store(session: Session, tokens: Sequence[int]) -> int:
    """One pass that puts the first of the tokens into the cache; gives how many. No logits are asked for."""
    block = tokens[: min(PREFILL_BLOCK, session.room)]
    session.score(TokenTree.chain(block), rows=())
    session.commit(range(len(block)))
    return len(block)
