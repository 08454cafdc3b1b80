"""Compares a converted canvas model with its source: ``conversion_check`` for canvases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import numpy as np

from unspool.backends.openvino.canvas import OpenVINODenoiser
from unspool.backends.openvino.conversion_check import Compared, Runner, spread_ids
from unspool.backends.openvino.convert import GraphInfo
from unspool.backends.openvino.model import OpenVINOModel
from unspool.backends.torch.canvas import TransformersDenoiser
from unspool.engine.canvas import CanvasPass

_LENGTH = 24
"""Length of the canvas."""


class CanvasCheck:
    """The source model's results for a canvas, and for a part of it after stored keys and values.

    Computed on construction, before the model is changed.
    """

    def __init__(self, denoiser: TransformersDenoiser, max_length: int) -> None:
        length = min(_LENGTH, max_length)
        tokens = np.array(spread_ids(denoiser.model, length))
        other = np.roll(tokens, 1)
        self._denoiser = denoiser
        self._passes = [
            CanvasPass(tokens, 0, length),
            CanvasPass(other, length // 3, max(length // 2, length // 3 + 1)),
        ]
        session = denoiser.open()
        self._expected = [session.score(fed).logits.astype(np.float32) for fed in self._passes]
        self.vocab_size = int(self._expected[0].shape[1])

    def compared(self, info: GraphInfo, runner: Callable[[GraphInfo], Runner]) -> Iterator[Compared]:
        """The same passes by a session of the OpenVINO backend, run by ``runner``."""
        session = _Unconverted(runner(info), self._denoiser).open()
        for fed, expected in zip(self._passes, self._expected, strict=True):
            yield Compared("logits", session.score(fed).logits.astype(np.float32), expected)


class _Unconverted(OpenVINODenoiser):
    """Passes that are not a graph's yet."""

    def __init__(self, runner: Runner, denoiser: TransformersDenoiser) -> None:
        self.graph = cast("OpenVINOModel", runner)
        self.shift, self.max_length = denoiser.shift, runner.max_length
        self.nothing = self.entries(0)
