"""Denoisers without weights: arbitrary logits that follow the canvas."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unspool.engine.canvas import CanvasPass, CanvasScores, CanvasSession


class MockSession:
    """Keeps what it was fed, as a cache of keys would: what is not fed again stays as old as it was."""

    def __init__(self, model: MockModel) -> None:
        self._model = model
        self._stored: NDArray[np.int64] | None = None
        self.fed: list[CanvasPass] = []
        self.closed = False

    def score(self, fed: CanvasPass) -> CanvasScores:
        assert not self.closed
        if self._stored is None:
            assert (fed.start, fed.stop) == (0, len(fed.tokens)), "the first pass must feed everything"
            self._stored = fed.tokens.copy()
        self._stored[fed.start : fed.stop] = fed.tokens[fed.start : fed.stop]
        self.fed.append(CanvasPass(fed.tokens.copy(), fed.start, fed.stop))
        return CanvasScores(fed.start, self._model.logits(self._stored)[fed.start : fed.stop], 1.0)

    def close(self) -> None:
        self.closed = True


class MockModel:
    """A ``Denoiser`` whose mask is the last id of its vocabulary."""

    max_length = 256
    settings = {"backend": "mock"}  # noqa: RUF012

    def __init__(self, vocab_size: int, eos_token_id: int | None = None) -> None:
        self.vocab_size = vocab_size
        self.mask_id = vocab_size - 1
        self.eos_token_id = eos_token_id
        self.sessions: list[MockSession] = []

    def logits(self, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        raise NotImplementedError

    def open(self) -> MockSession:
        self.sessions.append(MockSession(self))
        return self.sessions[-1]

    def score_many(self, sessions: Sequence[CanvasSession], fed: Sequence[CanvasPass]) -> list[CanvasScores]:
        return [session.score(one) for session, one in zip(sessions, fed, strict=True)]


class Whatever(MockModel):
    """Any logits, fixed by the canvas as it is stored. ``sharpness`` scales them."""

    def __init__(self, vocab_size: int = 7, eos_token_id: int | None = None, sharpness: float = 3.0) -> None:
        super().__init__(vocab_size, eos_token_id)
        self._sharpness = sharpness

    def logits(self, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        rng = np.random.default_rng(zlib.crc32(tokens.tobytes()))
        # Half of what a row holds stays the same from step to step, as in a model that is sure of some slots.
        steady = np.random.default_rng(len(tokens)).normal(size=(len(tokens), self.vocab_size))
        return np.asarray(self._sharpness * (steady + rng.normal(size=steady.shape)))
