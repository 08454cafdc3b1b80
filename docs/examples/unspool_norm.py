"""An example of a third-party probe (no paper): how far the state of a token lies from the usual length.

Changes about plain decoding: nothing; a probe reads. Left out: layers before the last.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from unspool import UnspoolError
from unspool.engine.method import PROBE, Method, Needs
from unspool.engine.option import Options, option
from unspool.engine.probe import Reading, States
from unspool.engine.taps import OUTPUT, Taps
from unspool.training.artifact import Artifact


@dataclass(frozen=True)
class NormOptions(Options):
    """Options of ``norm``.

    Attributes:
        file: an artifact that ``fit`` made; None: lengths as they are.
    """

    file: str | None = option(None, check=lambda path: Artifact.load(path, "norm"))


class Norm:
    """The length of what the output layer reads, in standard deviations from the mean of the examples."""

    taps = Taps((OUTPUT,))

    def __init__(self, options: NormOptions) -> None:
        made = None if options.file is None else Artifact.load(options.file, "norm")
        self.mean, self.deviation = (0.0, 1.0) if made is None else made.tensor("moments", 2)

    def read(self, states: States) -> Reading:
        lengths = np.linalg.norm(states.hidden[OUTPUT], axis=1)
        return Reading(tuple(float(value) for value in (lengths - self.mean) / self.deviation))

    def fit(self, examples: Iterable[tuple[States, Any]]) -> Artifact:
        lengths = [np.linalg.norm(states.hidden[OUTPUT], axis=1) for states, _ in examples]
        if not lengths:
            raise UnspoolError("norm needs examples; give some")
        every = np.concatenate(lengths)
        return Artifact("moments", "norm", (), {"moments": np.array([every.mean(), every.std() or 1.0])})


METHOD = Method(
    kind=PROBE,
    guarantee="identical",
    summary="Reads how long the last hidden state of each token is.",
    paper="none",
    options=NormOptions,
    build=lambda _, options: Norm(options),
    needs=Needs(taps=Norm.taps),
)
