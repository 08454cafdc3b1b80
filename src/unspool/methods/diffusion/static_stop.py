"""The control of ``prophet``: stops after a fixed number of passes, whatever the model predicts. Guarantee: lossy.

With a block cache, a pass that scored only its block cannot fill the rest: it stops at the next pass with all masks.
"""

from __future__ import annotations

from dataclasses import dataclass

from unspool.engine.canvas import CanvasState
from unspool.engine.method import STOP, Method
from unspool.engine.option import Options, option
from unspool.methods.diffusion._sweep import at


@dataclass(frozen=True)
class StaticStopOptions(Options):
    """The default fills a quarter of a canvas of 32 slots one by one.

    Attributes:
        passes: number of passes after which all remaining masks are filled, at least 1.
    """

    passes: int = option(8, least=1)


class StaticStop:
    """Stops after a number of passes."""

    def __init__(self, options: StaticStopOptions | None = None) -> None:
        self._passes = (options or StaticStopOptions()).passes

    def check(self, slots: int) -> None:
        """Does nothing: the rule fits any canvas."""

    def stop(self, sight: CanvasState) -> bool:
        return sight.step + 1 >= self._passes


METHOD = Method(
    kind=STOP,
    guarantee="lossy",
    summary="Fills all remaining masks after a fixed number of passes: the control of prophet.",
    paper="the control of prophet's paper",
    options=StaticStopOptions,
    build=lambda _, options: StaticStop(options),
    sweep={"static_stop": at((2, 4, 8, 16), "static_stop:passes={}+top_k")},
)
