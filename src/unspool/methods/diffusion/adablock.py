"""AdaBlock-dLLM: Semantic-Aware Diffusion LLM Inference via Adaptive Block Size (2025).

A fixed block cuts through steps of the text: confident tokens after it wait, uncertain ones before it are forced. At
the start of each block AdaBlock looks for the most confident delimiter (a newline) that is predicted within a window,
and ends the block there. It reads the block's first pass, so it costs no pass of its own.

Guarantee: lossy, as any parallel unmasking; a delimiter threshold of infinity is ``fixed_blocks`` exactly.

Choices: the window is that of the released code, a quarter of the canvas. The window that the paper's algorithm is said
to have, a quarter of what has been generated, is an option. The argmax is that of the raw logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from unspool.engine.canvas import CanvasState
from unspool.engine.method import SCHEDULE, Method
from unspool.engine.numeric import softmax
from unspool.engine.option import Options, option
from unspool.errors import UnspoolError
from unspool.methods.diffusion._sweep import THRESHOLDS, at
from unspool.methods.resources import Resources


@dataclass(frozen=True)
class AdaBlockOptions(Options):
    """Defaults are those of the released code for LLaDA.

    Attributes:
        delimiter_ids: tokens that end a step, at least one; None: those that contain a newline.
        delimiter_threshold: least probability of a delimiter for a block to end there; the paper uses 0.3 for LLaDA
            and 0.5 for Dream.
        block_length: of a block without a delimiter.
        window: ``canvas`` looks ahead a quarter of the canvas, ``generated`` a quarter of the text so far, at least 1.
    """

    delimiter_ids: Sequence[int] | None = None
    delimiter_threshold: float = 0.3
    block_length: int = option(32, least=1)
    window: Literal["canvas", "generated"] = "canvas"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.delimiter_ids is not None and not self.delimiter_ids:
            raise UnspoolError("delimiter_ids is empty; give ids, or omit it for the tokens that contain a newline")


class AdaBlock:
    """Blocks that end at delimiters.

    Args:
        newlines: the tokens that contain a newline; used if the options name no delimiters.
    """

    def __init__(self, options: AdaBlockOptions, newlines: Sequence[int] = ()) -> None:
        self.options = options
        self._delimiters = frozenset(newlines if options.delimiter_ids is None else options.delimiter_ids)
        if not self._delimiters:
            raise UnspoolError(
                "adablock needs delimiters, but no token of this model contains a newline; give delimiter_ids"
            )

    def check(self, slots: int) -> None:
        """Does nothing: blocks of any length fit, the last one is cut."""

    def next_block(self, start: int, sight: CanvasState) -> int:
        options = self.options
        left = len(sight.tokens) - start
        whole = len(sight.tokens) - sight.prompt_length
        ahead = whole // 4 if options.window == "canvas" else max(1, (start - sight.prompt_length) // 4)
        rows = sight.logits(start, start + min(ahead, left))
        assert rows is not None  # this pass scored the whole canvas
        best, length = -1.0, options.block_length
        for i, row in enumerate(rows):
            token = int(row.argmax())
            if token in self._delimiters:
                confidence = float(softmax(row)[token])
                if confidence >= options.delimiter_threshold and confidence > best:
                    best, length = confidence, i + 1
        return int(np.clip(length, 1, left))


def _build(resources: Resources, options: AdaBlockOptions) -> AdaBlock:
    return AdaBlock(options, resources.delimiters() if options.delimiter_ids is None else ())


METHOD = Method(
    kind=SCHEDULE,
    guarantee="lossy",
    summary="Ends each block where the model predicts the end of a line.",
    paper="AdaBlock-dLLM: Semantic-Aware Diffusion LLM Inference via Adaptive Block Size (2025)",
    options=AdaBlockOptions,
    build=_build,
    sweep={"adablock": at(THRESHOLDS, "adablock+threshold:threshold={}")},
)
