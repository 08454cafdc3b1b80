"""Large Language Diffusion Models (2025): LLaDA's semi-autoregressive blocks of one length, finished left to right."""

from __future__ import annotations

from dataclasses import dataclass

from unspool.engine.canvas import CanvasState
from unspool.engine.method import SCHEDULE, Method
from unspool.engine.option import Options, option
from unspool.errors import UnspoolError
from unspool.methods.diffusion._sweep import THRESHOLDS, at


@dataclass(frozen=True)
class FixedBlocksOptions(Options):
    """The default is the whole canvas.

    Attributes:
        block_length: slots of a block; None: all of them. Must divide the canvas.
    """

    block_length: int | None = option(None, least=1)


class FixedBlocks:
    """Blocks end at multiples of ``block_length`` slots, including given slots."""

    def __init__(self, options: FixedBlocksOptions | None = None) -> None:
        self._length = (options or FixedBlocksOptions()).block_length

    def check(self, slots: int) -> None:
        if self._length is not None and slots % self._length:
            below, above = slots // self._length * self._length, -(-slots // self._length) * self._length
            sizes = f"{below} or {above}" if below else str(above)
            raise UnspoolError(
                f"block_length {self._length} does not divide a canvas of {slots} slots; take {sizes} slots or another "
                "block_length"
            )

    def next_block(self, start: int, sight: CanvasState) -> int:
        """Up to the next multiple: a block may begin after given slots."""
        if self._length is None:
            return len(sight.tokens) - start
        return self._length - (start - sight.prompt_length) % self._length


METHOD = Method(
    kind=SCHEDULE,
    guarantee="lossy",
    summary="Finishes blocks of one length from left to right; by default the whole canvas is one block.",
    paper="Large Language Diffusion Models (2025)",
    options=FixedBlocksOptions,
    build=lambda _, options: FixedBlocks(options),
    sweep={
        "threshold, blocks of 8": at(THRESHOLDS, "fixed_blocks:block_length=8+threshold:threshold={}"),
        "threshold, blocks of 12": at(THRESHOLDS, "fixed_blocks:block_length=12+threshold:threshold={}"),
    },
)
