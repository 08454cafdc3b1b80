"""What the denoise loop is asked for: a canvas, the parts that fill it, options; and what is refused before work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from unspool.engine.canvas import BlockSchedule, CanvasConstraint, Denoiser, ScoreTransform, StopRule, UnmaskPolicy
from unspool.engine.noise import SEEDS
from unspool.engine.typed import settle
from unspool.errors import UnspoolError

Cache = Literal["none", "prefix", "dual"]


@dataclass(frozen=True)
class Parts:
    """What fills the loop for one canvas. Parts keep state, so each canvas has its own.

    Attributes:
        policy: which masks are replaced.
        schedule: where blocks end.
        transforms: applied to the logits of a block in this order.
        stop: when the rest is filled at once; None: never.
        constraint: what may be committed; None: anything. A token that it refuses is not looked at again in its slot,
            which waits for the next pass; if a pass would commit nothing, the likeliest token that is allowed is
            committed. Behind an end token everything is filled with it.
    """

    policy: UnmaskPolicy
    schedule: BlockSchedule
    transforms: Sequence[ScoreTransform] = ()
    stop: StopRule | None = None
    constraint: CanvasConstraint | None = None


@dataclass(frozen=True)
class CanvasOptions:
    """How a canvas is decoded, whatever the parts.

    Attributes:
        temperature: 0 takes the likeliest token; above 0 Gumbel noise of (seed, position, step), times the temperature,
            is added to the logits that the token is chosen by. Confidence is measured without it.
        seed: of the noise, and of policies that draw.
        cache: ``none`` feeds the whole canvas in every pass. ``prefix`` and ``dual`` are Fast-dLLM's: from a block's
            second pass on, only the block and what follows it, or only the block, is fed; keys and values of the rest
            are as old as the block's first pass, so the text may differ.
        stop_at_eos: whether an end token with no mask before it ends the decoding, since nothing behind it belongs to
            the text, which stays the same; the rest is filled with it.
        truncate_at_eos: cuts the canvas behind an end token, so that what follows is neither scored nor filled token by
            token: Learn2PD's end-of-text prediction. After each pass, behind the first end token that it committed;
            else behind the masked slot that predicts the end with the highest probability, if that is at least this
            number. 0 is the paper's rule, which a wrong prediction makes lose text for good; None never cuts. With a
            cache, a pass over all of the shorter canvas follows.
        guidance_scale: w of classifier-free guidance, in LLaDA's form: logits are u + (w + 1) (c - u), with c those of
            the canvas and u those of the canvas with a masked prompt. 0 is none; otherwise a step takes two passes.
    """

    temperature: float = 0.0
    seed: int = 0
    cache: Cache = "none"
    stop_at_eos: bool = False
    truncate_at_eos: float | None = None
    guidance_scale: float = 0.0

    def __post_init__(self) -> None:
        settle(self)
        if self.seed not in SEEDS:
            raise UnspoolError(f"seed must lie in 0 to 2^64 - 1, not {self.seed}")
        if not 0 <= self.temperature < float("inf"):
            raise UnspoolError(f"temperature must be 0 or above, not {self.temperature}")
        if self.truncate_at_eos is not None and not 0 <= self.truncate_at_eos <= 1:
            raise UnspoolError(f"truncate_at_eos is a probability, 0 to 1, not {self.truncate_at_eos}")
        if not 0 <= self.guidance_scale < float("inf"):
            raise UnspoolError(f"guidance_scale must be 0 or above, not {self.guidance_scale}")

    @property
    def passes_per_step(self) -> int:
        """Passes over the model that a step takes."""
        return 2 if self.guidance_scale else 1


@dataclass(frozen=True)
class CanvasRequest:
    """One canvas.

    Attributes:
        prompt: token ids before the slots.
        slots: token id of each slot, None for a mask; at least one. Tokens that are given are never changed.
        parts: of this canvas alone.
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
            f"a prompt of {len(request.prompt)} tokens and {len(request.slots)} slots do not fit into the model's "
            f"{model.max_length} positions; shorten the prompt or the canvas"
        )
    given = [*request.prompt, *(token for token in request.slots if token is not None)]
    for token in given:
        if not 0 <= token < model.vocab_size:
            raise UnspoolError(f"token id {token} lies outside the model's vocabulary of {model.vocab_size}")
        if token == model.mask_id:
            raise UnspoolError(f"token id {token} is the mask; write None for a slot that is to be filled")
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
        raise UnspoolError("guidance_scale compares with a masked prompt, and there is none; leave it out")
    request.parts.schedule.check(len(request.slots))
    if request.parts.stop is not None:
        request.parts.stop.check(len(request.slots))
    if request.parts.constraint is not None:
        request.parts.constraint.check(request.slots)
