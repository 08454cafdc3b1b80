"""Prefill: put tokens into the cache in blocks."""

from __future__ import annotations

from collections.abc import Sequence

from unspool.engine.contracts import Session
from unspool.engine.tree import TokenTree

PREFILL_BLOCK = 128
"""Prompt tokens per pass: large enough to keep the processor busy, small enough to bound the memory of a pass and the
time that a long prompt delays the other rows of a batch."""


def extend(session: Session, tokens: Sequence[int]) -> int:
    """Put tokens into the cache; returns the number of passes."""
    at = passes = 0
    while at < len(tokens):
        at += store(session, tokens[at:])
        passes += 1
    return passes


def store(session: Session, tokens: Sequence[int]) -> int:
    """One pass that puts a first block of the tokens into the cache; returns its size. Computes no logits."""
    block = tokens[: min(PREFILL_BLOCK, session.max_depth)]
    session.score(TokenTree.chain(block), rows=())
    session.commit(range(len(block)))
    return len(block)
