"""The request of the denoise loop: a canvas, its parts and options, and the checks before any work."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from unspool.engine.canvas import BlockSchedule, CanvasConstraint, Denoiser, ScoreTransform, StopRule, UnmaskPolicy
from unspool.engine.noise import SEEDS
from unspool.engine.option import Options, option
from unspool.errors import UnspoolError

Cache = Literal["none", "prefix", "dual"]


@dataclass(frozen=True)
class Parts:
    """The parts of the loop for one canvas. Parts are stateful, so each canvas has its own.

    Attributes:
        policy: which masks are replaced after a pass.
        schedule: where blocks end.
        transforms: applied to the logits of a block, in this order.
        stop: when all remaining masks are filled at once; None: never.
        constraint: which tokens may be committed; None: any. A refused token is not tried again in its slot, which
            waits for the next pass. If a pass would commit nothing, the most likely allowed token is committed. After
            an end token, the canvas is filled with it.
    """

    policy: UnmaskPolicy
    schedule: BlockSchedule
    transforms: Sequence[ScoreTransform] = ()
    stop: StopRule | None = None
    constraint: CanvasConstraint | None = None


@dataclass(frozen=True)
class CanvasOptions(Options):
    """How a canvas is decoded, independent of its parts.

    Attributes:
        temperature: 0 takes the most likely token; above 0 Gumbel noise of (seed, position, step), times the
            temperature, is added to the logits before the token is chosen. Confidence is measured without it.
        seed: Of the noise, and of policies that draw.
        cache: ``none``, or Fast-dLLM's ``prefix`` or ``dual``, whose keys are as old as the block. From a block's
            second pass on, only the block and what follows it (``prefix``), or only the block (``dual``), is fed; keys
            and values of the rest date from the block's first pass, so the text may differ.
        stop_at_eos: End at an end token with no mask before it; the text stays the same. The rest is filled with it.
        truncate_at_eos: Cut the canvas after an end token of at least this probability; 0 is Learn2PD's rule. What
            follows is then neither scored nor filled. The cut is, after each pass, at the first end token that it
            committed; else at the masked slot that predicts the end with the highest probability. With 0 a wrong
            prediction loses text for good. Default: never. With a cache, a pass over all of the shorter canvas follows.
        guidance_scale: Classifier-free guidance, two passes a step; 0: none. The w of LLaDA's form: logits are
            u + (w + 1) (c - u), with c those of the canvas and u those of the canvas with a masked prompt.
    """

    temperature: float = option(0.0, least=0, below=math.inf)
    seed: int = option(0, least=0, most=SEEDS[-1])
    cache: Cache = "none"
    stop_at_eos: bool = False
    truncate_at_eos: float | None = option(None, least=0, most=1)
    guidance_scale: float = option(0.0, least=0, below=math.inf)

    @property
    def passes_per_step(self) -> int:
        """Passes of the model per step."""
        return 2 if self.guidance_scale else 1


@dataclass(frozen=True)
class CanvasRequest:
    """One canvas.

    Attributes:
        prompt: token ids before the slots.
        slots: token id of each slot, None for a mask; at least one. Given tokens are never changed.
        parts: used by this canvas only.
        options: see ``CanvasOptions``.
        name: of the method, for the trace.
    """

    prompt: Sequence[int]
    slots: Sequence[int | None]
    parts: Parts
    options: CanvasOptions = field(default_factory=CanvasOptions)
    name: str = ""


def check(model: Denoiser, request: CanvasRequest) -> None:
    """Raise an ``UnspoolError`` if the request cannot be decoded, before any work."""
    length = len(request.prompt) + len(request.slots)
    if not request.slots:
        raise UnspoolError("the canvas has no slots; ask for at least one token")
    if length > model.max_length:
        raise UnspoolError(
            f"a prompt of {len(request.prompt)} tokens and {len(request.slots)} slots exceed the model's "
            f"{model.max_length} positions; shorten the prompt or the canvas"
        )
    given = [*request.prompt, *(token for token in request.slots if token is not None)]
    for token in given:
        if not 0 <= token < model.vocab_size:
            raise UnspoolError(f"token id {token} is outside the model's vocabulary of {model.vocab_size}")
        if token == model.mask_id:
            raise UnspoolError(f"token id {token} is the mask; write None for a slot to fill")
    options, parts = request.options, request.parts
    if model.eos_token_id is None and (options.stop_at_eos or options.truncate_at_eos is not None):
        name = "stop_at_eos" if options.stop_at_eos else "truncate_at_eos"
        raise UnspoolError(f"{name} needs a model with an end token; leave it out")
    if options.truncate_at_eos is not None:
        if parts.constraint is not None:
            raise UnspoolError("truncate_at_eos may cut off what a constraint asks for; use stop_at_eos instead")
        if any(token is not None for token in request.slots):
            raise UnspoolError("truncate_at_eos may cut off slots that are given; use stop_at_eos instead")
    if options.guidance_scale and not request.prompt:
        raise UnspoolError("guidance_scale needs a prompt to mask; give one or leave it out")
    request.parts.schedule.check(len(request.slots))
    if request.parts.stop is not None:
        request.parts.stop.check(len(request.slots))
    if request.parts.constraint is not None:
        request.parts.constraint.check(request.slots)
