"""The contracts of the denoise loop: models that score a masked canvas, and the parts that choose what to unmask.

A canvas is a prompt followed by a fixed number of slots, some of them masked. Positions are absolute; the prompt's
first token is 0. A *block* is a range of slots that is finished before the next one begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from unspool.engine.contracts import Logits

Tokens = NDArray[np.int64]
Flags = NDArray[np.bool_]


class CanvasPass(NamedTuple):
    """A requested pass.

    Attributes:
        tokens: [length] the whole canvas, masks included.
        start, stop: the positions that are fed; their keys and values are stored. Those of all other positions are the
            stored ones, so each must have been fed before.
    """

    tokens: Tokens
    start: int
    stop: int


@dataclass(frozen=True)
class CanvasScores:
    """The result of one pass over a canvas.

    Attributes:
        start: position of the first row.
        logits: [rows, vocabulary]; row i is about the token *at* position ``start + i``, even if the model was trained
            to predict the next one. The memory belongs to the session; its next pass overwrites it.
        ms: milliseconds of the pass, shared evenly between the sessions of one batch.
    """

    start: int
    logits: Logits
    ms: float


class CanvasSession(Protocol):
    """One canvas on one model."""

    def score(self, fed: CanvasPass) -> CanvasScores:
        """Logits at the fed positions."""
        ...

    def close(self) -> None:
        """Free the memory. The session must not be used afterwards."""
        ...


class Denoiser(Protocol):
    """A loaded masked-diffusion model."""

    @property
    def vocab_size(self) -> int:
        """Width of a row of logits."""
        ...

    @property
    def max_length(self) -> int:
        """Maximum canvas length in tokens, prompt included."""
        ...

    @property
    def mask_id(self) -> int:
        """The mask token's id."""
        ...

    @property
    def eos_token_id(self) -> int | None:
        """The token that ends a text and fills the canvas after it; None if there is none."""
        ...

    @property
    def settings(self) -> dict[str, str]:
        """Everything that affects speed or rounding."""
        ...

    def open(self) -> CanvasSession: ...

    def score_many(self, sessions: Sequence[CanvasSession], fed: Sequence[CanvasPass]) -> list[CanvasScores]:
        """``score`` of all sessions in one batch. The results equal those of separate calls up to rounding."""
        ...


@dataclass(frozen=True)
class CanvasState:
    """What schedules and stop rules see: the whole canvas, without its truncated end, and the last pass over it.

    Attributes:
        tokens: [length] the canvas.
        masked: [length] which positions are masked.
        prompt_length: number of tokens before the first slot.
        scores: of the last pass, raw.
        step: number of earlier passes.
    """

    tokens: Tokens
    masked: Flags
    prompt_length: int
    scores: CanvasScores
    step: int

    def logits(self, start: int, stop: int) -> Logits | None:
        """Raw rows [stop - start, vocabulary] of these positions; None if the pass did not feed all of them."""
        first, rows = self.scores.start, self.scores.logits
        if start < first or stop > first + len(rows):
            return None
        return rows[start - first : stop - first]


@dataclass(frozen=True)
class BlockState:
    """What transforms and policies see: the slots of the active block.

    A block keeps its length. Truncated slots look decided: the end token, with certainty.

    Attributes:
        sight: the whole canvas.
        start: position of the block's first slot.
        masked: [block] which slots are masked.
        logits: [block, vocabulary]: raw for transforms, transformed for policies. The mask token is at -inf.
        tokens: [block] the candidates to commit.
        seed: of the request.
    """

    sight: CanvasState
    start: int
    masked: Flags
    logits: NDArray[np.float64]
    tokens: Tokens
    seed: int

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """[block, vocabulary] softmax of the logits, without temperature and noise."""
        exp = np.exp(self.logits - self.logits.max(axis=1, keepdims=True))
        probabilities: NDArray[np.float64] = exp / exp.sum(axis=1, keepdims=True)
        return probabilities

    @cached_property
    def confidence(self) -> NDArray[np.float64]:
        """[block] probability of the candidate tokens."""
        return self.probabilities[np.arange(len(self.tokens)), self.tokens]

    @cached_property
    def margin(self) -> NDArray[np.float64]:
        """[block] gap between the two largest probabilities."""
        best = np.partition(self.probabilities, -2, axis=1)[:, -2:]
        return best[:, 1] - best[:, 0]

    @cached_property
    def entropy(self) -> NDArray[np.float64]:
        """[block] entropy in nats."""
        p = self.probabilities
        entropy: NDArray[np.float64] = -(p * np.log(np.where(p > 0, p, 1.0))).sum(axis=1)
        return entropy


class ScoreTransform(Protocol):
    """Changes the logits of a block before tokens are chosen. May keep state across the steps of one block."""

    def start_block(self, view: BlockState) -> None:
        """Start a block; ``view`` is that of its first pass."""
        ...

    def __call__(self, view: BlockState) -> NDArray[np.float64]:
        """New logits [block, vocabulary]. Must not change ``view``."""
        ...


class UnmaskPolicy(Protocol):
    """Chooses which masks are replaced after a pass."""

    def start_block(self, view: BlockState) -> None:
        """Start a block; ``view`` is that of its first pass."""
        ...

    def select(self, view: BlockState) -> Flags:
        """[block] which slots to commit. Unmasked slots are ignored. If none is left, the loop commits the masked slot
        of the highest confidence, so every pass commits at least one."""
        ...


@runtime_checkable
class BoundedPolicy(UnmaskPolicy, Protocol):
    """An unmask policy with a maximum block length; the loop ends blocks there at the latest."""

    @property
    def longest_block(self) -> int:
        """Maximum number of slots of a block, at least 1."""
        ...


class BlockSchedule(Protocol):
    """Decides where the next block ends."""

    def check(self, slots: int) -> None:
        """Raise an ``UnspoolError``, before any pass, if this number of slots cannot be divided into blocks."""
        ...

    def next_block(self, start: int, sight: CanvasState) -> int:
        """Length of the block that starts at position ``start``, at least 1. The loop cuts it at the end of the canvas
        and at the limit of a bounded policy.

        ``sight`` is that of a pass over the whole canvas, which is also the block's first pass.
        """
        ...


class StopRule(Protocol):
    """Decides when all remaining masks may be filled at once with the most likely tokens."""

    def check(self, slots: int) -> None:
        """Raise an ``UnspoolError``, before any pass, if the rule does not fit this number of slots."""
        ...

    def stop(self, sight: CanvasState) -> bool:
        """Called after each pass, before any of its tokens is committed."""
        ...


class CanvasConstraint(Protocol):
    """Decides which canvases can still become a valid text. A refusal is final for the run: what cannot be completed
    now cannot be completed later, with fewer slots open."""

    def check(self, slots: Sequence[int | None]) -> None:
        """Raise an ``UnspoolError`` if these slots (None: masked) cannot be completed."""
        ...

    def allows(self, slots: Sequence[int | None], slot: int, token: int) -> bool:
        """Whether the slots can still be completed with ``token`` in place of the mask in ``slot``."""
        ...
