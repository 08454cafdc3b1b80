"""Fixtures of the conformance suite."""

from __future__ import annotations

import pytest

from unspool.backends.toy import ToyModel


@pytest.fixture(scope="session")
def bigram_pair() -> tuple[ToyModel, ToyModel]:
    """The Monte Carlo pair: 4 tokens, every probability at least 0.03, draft = target · exp(0.8 · N(0, 1))."""
    target = ToyModel.random(seed=1, vocab_size=4, order=1, floor=0.03)
    return target, target.related(0.8, seed=2)
