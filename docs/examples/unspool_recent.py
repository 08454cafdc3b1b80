"""An example of a third-party shaper (no paper): tokens that came a moment ago become less likely.

Changes about plain decoding: the logits of the newest tokens are lowered. Guarantee: lossy. Left out: weights by age.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unspool.engine.contracts import Logits
from unspool.engine.method import SHAPER, Method
from unspool.engine.option import Options, option


@dataclass(frozen=True)
class RecentOptions(Options):
    """Options of ``recent``.

    Attributes:
        window: how many of the newest tokens, at least 1.
        penalty: what is subtracted from their logits.
    """

    window: int = option(8, least=1)
    penalty: float = option(2.0, least=0)


class Recent:
    """A function of the text alone, which keeps nothing: nodes of a tree are asked for in any order."""

    def __init__(self, options: RecentOptions) -> None:
        self.options = options

    def __call__(self, tokens: NDArray[np.int64], logits: Logits) -> Logits:
        shaped = logits.copy()  # what it is given belongs to the session
        shaped[np.unique(tokens[-self.options.window :])] -= self.options.penalty
        return shaped


METHOD = Method(
    kind=SHAPER,
    guarantee="lossy",
    summary="Lowers the logits of the newest tokens.",
    paper="none",
    options=RecentOptions,
    build=lambda _, options: Recent(options),
)
