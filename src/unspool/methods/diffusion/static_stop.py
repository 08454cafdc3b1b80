"""The control of ``prophet``: stops after a fixed number of passes, whatever the model says. Guarantee: lossy.

Under a cache a pass that fed only its block cannot fill the rest: there it stops at the next pass that feeds all masks.
"""

from __future__ import annotations

from dataclasses import dataclass

from unspool.engine.canvas import Sight
from unspool.engine.method import STOP, Method
from unspool.engine.option import Options, option
from unspool.methods.diffusion._sweep import at


@dataclass(frozen=True)
class StaticStopOptions(Options):
    """The default fills a quarter of a canvas of 32 slots one by one.

    Attributes:
        passes: after which all remaining masks are filled, at least 1.
    """

    passes: int = option(8, least=1)


class StaticStop:
    """Stops at a pass."""

    def __init__(self, options: StaticStopOptions | None = None) -> None:
        self._passes = (options or StaticStopOptions()).passes

    def check(self, slots: int) -> None:
        """Nothing: the rule fits any canvas."""

    def stop(self, sight: Sight) -> bool:
        return sight.step + 1 >= self._passes


METHOD = Method(
    kind=STOP,
    guarantee="lossy",
    summary="Fills all remaining masks after a fixed number of passes: what prophet must beat.",
    paper="the control of prophet's paper",
    options=StaticStopOptions,
    build=lambda _, options: StaticStop(options),
    sweep={"static_stop": at((2, 4, 8, 16), "static_stop:passes={}+top_k")},
)
