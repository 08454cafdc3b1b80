"""Masked-diffusion models on OpenVINO: as in ``torch.canvas``, on graphs made by ``canvas_convert``.

A pass over the whole canvas is a pass of new positions without a past, all of which see each other. A pass over a part
uses the stored keys and values as its past, with those of the fed positions masked, and overwrites them with the new
ones. Its sums run over the slots in another order than those of a whole pass. So with fp32 weights last bits differ;
with int8 weights, whose activations are also rounded to int8, differences are larger.

Shapes are not padded: every position of a pass is computed, and a canvas is scored repeatedly in the few shapes of its
blocks.

Not supported: one pass for several canvases of a batch. One canvas keeps a processor busy, and each gets exactly the
numbers that it gets alone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from unspool.backends.openvino.model import Entries, OpenVINOModel
from unspool.engine.canvas import CanvasPass, CanvasScores, CanvasSession
from unspool.errors import UnspoolError
from unspool.models.diffusion import CANVAS

_MASKED = np.float32(-1e9)


class OpenVINODenoiser:
    """A converted ``Denoiser``, compiled for this machine's CPU.

    Args:
        directory: made by ``backends.openvino.canvas_convert.converted``.
        threads: number of threads; the physical cores by default.
    """

    def __init__(self, directory: Path, threads: int | None = None) -> None:
        about = json.loads((directory / CANVAS).read_text("utf-8"))
        self.mask_id: int = about["mask_id"]
        self.eos_token_id: int | None = about["eos_token_id"]
        self.shift: int = about["shift"]
        self.graph = OpenVINOModel(directory, threads)
        self.vocab_size = self.graph.vocab_size
        self.max_length = self.graph.max_length
        self.settings = self.graph.settings
        self.nothing = self.entries(0)

    def entries(self, length: int) -> Entries:
        """Keys and values for a canvas of this length, all zero."""
        info = self.graph.info
        shape = (info.layers, info.kv_heads, length)
        return np.zeros((*shape, info.head_dim), np.float32), np.zeros((*shape, info.value_dim + 1), np.float32)

    def open(self) -> OpenVINOCanvasSession:
        """A session without keys and values: its first pass must feed the whole canvas."""
        return OpenVINOCanvasSession(self)

    def score_many(self, sessions: Sequence[CanvasSession], fed: Sequence[CanvasPass]) -> list[CanvasScores]:
        """One pass per session, so that every canvas gets exactly the numbers that it gets alone."""
        return [session.score(one) for session, one in zip(sessions, fed, strict=True)]


class OpenVINOCanvasSession:
    """One canvas, with the keys and values of all positions, each from when it was last fed."""

    def __init__(self, model: OpenVINODenoiser) -> None:
        self._model = model
        self._kept = model.nothing

    @property
    def _length(self) -> int:
        return int(self._kept[0].shape[2])

    def score(self, fed: CanvasPass) -> CanvasScores:
        """Logits float32; see ``CanvasSession.score``."""
        begin = time.perf_counter()
        self._check(fed)
        model, length = self._model, len(fed.tokens)
        # If rows are shifted, the row of the first requested position is the one before it.
        start, stop = max(0, fed.start - model.shift), fed.stop
        past = self._kept
        if (start, stop) == (0, length):
            past = model.nothing
            if self._length != length:
                self._kept = model.entries(length)
        seen = np.zeros(past[0].shape[2] + stop - start, np.float32)
        if past is not model.nothing:
            seen[start:stop] = _MASKED
        logits, new, *_ = model.graph.infer(
            past,
            {
                "ids": fed.tokens[None, start:stop],
                "positions": np.arange(start, stop)[None],
                "rows": np.maximum(np.arange(fed.start, fed.stop) - model.shift, 0) - start,
                "mask": np.tile(seen, (model.graph.info.groups * (stop - start), 1)),
            },
        )
        for kept, entries in zip(self._kept, new, strict=True):
            kept[:, :, start:stop] = entries
        # The next pass of any session overwrites the request's memory.
        return CanvasScores(fed.start, logits.copy(), (time.perf_counter() - begin) * 1000)

    def _check(self, fed: CanvasPass) -> None:
        length = len(fed.tokens)
        if not 0 <= fed.start < fed.stop <= length:
            raise ValueError(f"cannot feed positions {fed.start} to {fed.stop} of a canvas of {length}")
        if length > self._model.max_length:
            raise UnspoolError(f"the canvas exceeds the model's {self._model.max_length} positions; shorten it")
        if self._length != length and (fed.start, fed.stop) != (0, length):
            raise ValueError("the first pass over a canvas must feed all of it")

    def close(self) -> None:
        self._kept = self._model.nothing
