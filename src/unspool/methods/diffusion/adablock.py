"""AdaBlock-dLLM: Semantic-Aware Diffusion LLM Inference via Adaptive Block Size (2025).

A fixed block cuts through steps of the text: what is certain behind it waits, what is shaky before it is forced. At the
start of each block AdaBlock looks for the most confident delimiter (a newline) that is predicted within a window, and
ends the block there. The pass that it looks at is the block's first one, so looking costs nothing.

Guarantee: lossy, as any parallel unmasking; a delimiter threshold of infinity is ``fixed_blocks`` exactly.

Choices: the window is that of the released code, a quarter of the canvas; the one that the paper's algorithm is said to
have, a quarter of what has been generated, is an option. The argmax is that of the raw logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from unspool.engine.canvas import Sight
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
        delimiter_ids: tokens that end a step, at least one; None: those that hold a newline.
        delimiter_threshold: least probability of a delimiter for a block to end there; the paper takes 0.3 for LLaDA
            and 0.5 for Dream.
        block_length: of a block without a delimiter.
        window: ``canvas`` looks a quarter of the canvas ahead, ``generated`` a quarter of what lies behind, at least 1.
    """

    delimiter_ids: Sequence[int] | None = None
    delimiter_threshold: float = 0.3
    block_length: int = option(32, least=1)
    window: Literal["canvas", "generated"] = "canvas"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.delimiter_ids is not None and not self.delimiter_ids:
            raise UnspoolError("delimiter_ids is empty; give ids, or leave it out for the tokens that hold a newline")


class AdaBlock:
    """Blocks that end at delimiters.

    Args:
        newlines: the tokens that hold a newline; looked at if the options name no delimiters.
    """

    def __init__(self, options: AdaBlockOptions, newlines: Sequence[int] = ()) -> None:
        self.options = options
        self._delimiters = frozenset(newlines if options.delimiter_ids is None else options.delimiter_ids)
        if not self._delimiters:
            raise UnspoolError(
                "adablock needs delimiters, and no token of this model holds a newline; give delimiter_ids"
            )

    def check(self, slots: int) -> None:
        """Nothing: blocks of any length fit, the last one is cut."""

    def next_block(self, start: int, sight: Sight) -> int:
        options = self.options
        left = len(sight.tokens) - start
        whole = len(sight.tokens) - sight.prompt_length
        ahead = whole // 4 if options.window == "canvas" else max(1, (start - sight.prompt_length) // 4)
        rows = sight.logits(start, start + min(ahead, left))
        assert rows is not None  # the pass fed the whole canvas
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
    summary="Ends a block where the model predicts the end of a line.",
    paper="AdaBlock-dLLM: Semantic-Aware Diffusion LLM Inference via Adaptive Block Size (2025)",
    options=AdaBlockOptions,
    build=_build,
    sweep={"adablock": at(THRESHOLDS, "adablock+threshold:threshold={}")},
)
