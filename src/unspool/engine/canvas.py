"""The contracts of the denoise loop: models that score a canvas with masks, and the parts that choose what to unmask.

A canvas is a prompt and a fixed number of slots behind it, some of which hold a mask. Positions are absolute, the
prompt's first token is 0; a *block* is a range of slots that is finished before the next one begins.
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


class Fed(NamedTuple):
    """One pass that is asked for.

    Attributes:
        tokens: [length] the whole canvas, masks included.
        start, stop: the positions that are fed. Keys and values of the others are those that were stored when they were
            last fed; all must have been fed before. Everything that is fed is stored.
    """

    tokens: Tokens
    start: int
    stop: int


@dataclass(frozen=True)
class CanvasScores:
    """What one pass over a canvas returned.

    Attributes:
        start: position of the first row.
        logits: [rows, vocabulary]; row i is about the token *at* position ``start + i``, also where the model was
            trained to predict the next one. The memory belongs to the session and is overwritten by its next pass.
        ms: milliseconds that the pass took, shared evenly between the sessions of one batch.
    """

    start: int
    logits: Logits
    ms: float


class CanvasSession(Protocol):
    """One canvas on one model."""

    def score(self, fed: Fed) -> CanvasScores:
        """Logits at the positions that are fed."""
        ...

    def close(self) -> None:
        """Give the memory back. The session must not be used afterwards."""
        ...


class Denoiser(Protocol):
    """A loaded masked-diffusion model."""

    @property
    def vocab_size(self) -> int:
        """Width of a row of logits."""
        ...

    @property
    def max_length(self) -> int:
        """Longest canvas, prompt included, in tokens."""
        ...

    @property
    def mask_id(self) -> int:
        """The token that stands for a mask."""
        ...

    @property
    def eos_token_id(self) -> int | None:
        """The token that ends a text and fills the canvas behind it; None if there is none."""
        ...

    @property
    def settings(self) -> dict[str, str]:
        """Everything that changes speed or rounding."""
        ...

    def open(self) -> CanvasSession: ...

    def score_many(self, sessions: Sequence[CanvasSession], fed: Sequence[Fed]) -> list[CanvasScores]:
        """``score`` of each session, together. The results are those of one at a time up to rounding."""
        ...


@dataclass(frozen=True)
class Sight:
    """What schedules and stop rules see: the whole canvas, without what was cut off, and the last pass over it.

    Attributes:
        tokens: [length] the canvas.
        masked: [length] where it holds a mask.
        prompt_length: number of tokens before the first slot.
        scores: of the last pass, raw.
        step: number of passes before that one.
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
class View:
    """What transforms and policies see: the slots of the active block.

    A block keeps its length. Slots that were cut off the canvas look like any that is decided: the end token, surely.

    Attributes:
        sight: the whole canvas.
        start: position of the block's first slot.
        masked: [block] where the block holds a mask.
        logits: [block, vocabulary]: raw ones for transforms, transformed ones for policies. That of the mask is -inf.
        tokens: [block] what would be committed.
        seed: of the request.
    """

    sight: Sight
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
        """[block] probability of the tokens that would be committed."""
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
    """Changes the logits of a block before tokens are chosen. Keeps state from step to step within one block."""

    def enter(self, view: View) -> None:
        """A block begins; ``view`` is that of its first pass."""
        ...

    def __call__(self, view: View) -> NDArray[np.float64]:
        """New logits [block, vocabulary]; ``view`` must not be changed."""
        ...


class UnmaskPolicy(Protocol):
    """Chooses the masks that are replaced after a pass."""

    def enter(self, view: View) -> None:
        """A block begins; ``view`` is that of its first pass."""
        ...

    def select(self, view: View) -> Flags:
        """[block] which slots to commit. Those without a mask are ignored; if none is left, the loop commits the masked
        slot of the highest confidence, so that every pass commits at least one."""
        ...


@runtime_checkable
class BoundedPolicy(UnmaskPolicy, Protocol):
    """An unmask policy that can only look at so many slots: the loop ends blocks there at the latest."""

    @property
    def longest_block(self) -> int:
        """Most slots of a block, at least 1."""
        ...


class BlockSchedule(Protocol):
    """Says where the next block ends."""

    def check(self, slots: int) -> None:
        """Raise an ``UnspoolError`` if this many slots cannot be divided, before any pass."""
        ...

    def next_block(self, start: int, sight: Sight) -> int:
        """Length of the block that starts at position ``start``, at least 1; the loop cuts it at the canvas's end, and
        where the policy is bounded.

        ``sight`` is that of a pass over the whole canvas, which is the block's first pass as well.
        """
        ...


class StopRule(Protocol):
    """Says when the rest may be filled with the likeliest tokens at once."""

    def check(self, slots: int) -> None:
        """Raise an ``UnspoolError`` if the rule does not fit this many slots, before any pass."""
        ...

    def stop(self, sight: Sight) -> bool:
        """Asked after each pass, before anything of it is committed."""
        ...


class CanvasConstraint(Protocol):
    """Says which canvases can still become a right text. Its verdicts hold for the rest of a run: what cannot be
    completed now cannot be later, with less left open."""

    def check(self, slots: Sequence[int | None]) -> None:
        """Raise an ``UnspoolError`` if these slots, None where they hold a mask, cannot be completed."""
        ...

    def allows(self, slots: Sequence[int | None], slot: int, token: int) -> bool:
        """Whether they can still be completed with ``token`` in place of the mask in ``slot``."""
        ...
