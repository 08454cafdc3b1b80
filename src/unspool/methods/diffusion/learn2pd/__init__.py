"""Learning to Parallel: Accelerating Diffusion Large Language Models via Learnable Parallel Decoding (2025).

A decoder that knew the final text could commit each token at the first pass that predicts it. A small filter learns to
recognise these passes from the confidences of the whole block: it predicts for each slot whether its prediction is
already final. The most confident slot is always committed. Guarantee: lossy; a threshold above 1 is one token per step.

Choices: two linear layers of the block's width with a ReLU between them, which has the paper's number of parameters. A
block shorter than the filter is padded with confidence 1, that of decided slots. Longer blocks of a schedule end at the
width of the filter.

The paper's end-of-text prediction (EoTP) cuts the canvas after a predicted end token. It works with any policy, so it
is an option of the loop: ``truncate_at_eos`` of ``CanvasOptions``, 0 for the paper's rule, higher for a safer one.
``stop_at_eos`` ends decoding without losing text.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unspool.engine.canvas import BlockState, Flags
from unspool.engine.method import UNMASK, Case, Method
from unspool.engine.option import Options, option
from unspool.errors import UnspoolError
from unspool.methods.diffusion._sweep import THRESHOLDS, at
from unspool.methods.resources import Resources
from unspool.training.artifact import Artifact, Tensors, file_of

KIND = "unmask filter"
METHOD_NAME = "learn2pd"


@dataclass(frozen=True)
class Learn2PDOptions(Options):
    """The default threshold is that of the authors' script.

    Attributes:
        filter: file that ``unspool train learn2pd`` wrote, or its directory; None: the one beside the model.
        threshold: minimum probability, by the filter, that a prediction is final.
    """

    filter: str | None = option(None, check=partial(Artifact.load, method=METHOD_NAME))
    threshold: float = 0.96


@dataclass(frozen=True)
class UnmaskFilter:
    """Two linear layers: confidences of a block [width] to logits [width] that its predictions are final.

    Attributes:
        first, second: [width, width], applied from the right.
        first_bias, second_bias: [width].
    """

    first: NDArray[np.float32]
    first_bias: NDArray[np.float32]
    second: NDArray[np.float32]
    second_bias: NDArray[np.float32]

    @property
    def width(self) -> int:
        return len(self.first)

    def __call__(self, confidence: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities [..., slots] from confidences of at most ``width`` slots."""
        slots = confidence.shape[-1]
        padding = [(0, 0)] * (confidence.ndim - 1) + [(0, self.width - slots)]
        whole = np.pad(confidence, padding, constant_values=1.0)
        logits = np.maximum(whole @ self.first + self.first_bias, 0) @ self.second + self.second_bias
        probabilities: NDArray[np.float64] = 1 / (1 + np.exp(-logits[..., :slots].astype(np.float64)))
        return probabilities

    @property
    def tensors(self) -> Tensors:
        """The tensors of an artifact."""
        return vars(self)

    @classmethod
    def of(cls, artifact: Artifact) -> UnmaskFilter:
        """The filter stored in an artifact.

        Raises:
            UnspoolError: if tensors are missing or have other shapes.
        """
        first = artifact.tensor("first", None, None)
        width = len(first)
        return cls(
            artifact.tensor("first", width, width),
            artifact.tensor("first_bias", width),
            artifact.tensor("second", width, width),
            artifact.tensor("second_bias", width),
        )


class Learn2PD:
    """Commits predictions that the filter judges final."""

    def __init__(self, options: Learn2PDOptions, unmask_filter: UnmaskFilter) -> None:
        self.options = options
        self._filter = unmask_filter

    @property
    def longest_block(self) -> int:
        """Block length that the filter was trained on, in slots."""
        return self._filter.width

    def start_block(self, view: BlockState) -> None:
        """Do nothing: the rule has no state."""

    def select(self, view: BlockState) -> Flags:
        chosen: Flags = self._filter(view.confidence) > self.options.threshold
        chosen[np.argmax(np.where(view.masked, view.confidence, -np.inf))] = True
        return chosen


def _build(resources: Resources, options: Learn2PDOptions) -> Learn2PD:
    beside = None if resources.directory is None else file_of(resources.directory, METHOD_NAME)
    path = options.filter or beside
    if path is None or (path is beside and not beside.is_file()):
        raise UnspoolError(f"learn2pd needs a filter for this model; train one with `unspool train {METHOD_NAME}`")
    artifact = Artifact.load(path, METHOD_NAME)
    artifact.check(resources)
    return Learn2PD(options, UnmaskFilter.of(artifact))


def _any_filter(directory: Path) -> None:
    """Write an untrained filter, for the case."""
    rng = np.random.default_rng(0)
    shapes = ((12, 12), 12, (12, 12), 12)
    made = UnmaskFilter(*(rng.normal(size=shape).astype(np.float32) for shape in shapes))
    Artifact(KIND, METHOD_NAME, (), made.tensors).save(file_of(directory, METHOD_NAME))


METHOD = Method(
    kind=UNMASK,
    guarantee="lossy",
    summary="Commits the predictions that a small trained filter judges final from the confidences of the whole block.",
    paper="Learning to Parallel: Accelerating Diffusion Large Language Models via Learnable Parallel Decoding (2025)",
    options=Learn2PDOptions,
    build=_build,
    case=Case(prepare=_any_filter),
    sweep={"learn2pd, blocks of 8": at(THRESHOLDS, "fixed_blocks:block_length=8+learn2pd:threshold={}")},
    trainer=".train",
)
