"""Trace events: all that streaming, statistics, benchmark, proof and viewer read."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

FinishReason = Literal["stop", "length", "stop_string", "stopping_criteria", "cancelled", "error"]

TRACE_VERSION = 1


@dataclass(frozen=True)
class StartEvent:
    """A request begins.

    Attributes:
        row: index of the sequence in its batch.
        prompt_tokens: number of tokens of the prompt.
        method: name of the method, with anything it lacked: ``specdec_pp (no head)``.
        settings: the model's settings (backend, weights, threads, versions).
        temperature, seed: of the request.
    """

    row: int
    prompt_tokens: int
    method: str
    settings: dict[str, str]
    temperature: float
    seed: int
    kind: Literal["start"] = "start"
    version: int = TRACE_VERSION


@dataclass(frozen=True)
class PrefillEvent:
    """The prompt, except its last token, is in the cache."""

    row: int
    tokens: int
    ms: float
    kind: Literal["prefill"] = "prefill"


@dataclass(frozen=True)
class StepEvent:
    """One pass of the autoregressive loop. Times are in milliseconds.

    Attributes:
        position: absolute position of the first emitted token.
        tokens, parents, sources: the tree; ``sources`` are names, ``"root"`` for node 0.
        accepted: accepted nodes, root first.
        emitted: tokens that entered the output (cut at end of text and at the length limit).
        margins: per emitted token, its lead over all others in the scores that plain decoding compares, see
            ``ShapedTarget.margin``; negative if a rule emitted another token than plain decoding takes.
        logprobs: per emitted token, its log-probability in that distribution; None unless requested.
        draft_ms, score_ms, accept_ms, observe_ms: time in the drafter, model, acceptance rule and ``observe``.
        alternatives: per emitted token, the best (id, log-probability) of that distribution, best first, without tokens
            that cannot follow; None unless requested.
        ranks: per emitted token, its rank in that order, 0 for the best; None unless requested.
        batch_pass: pass number within the batch; rows with the same number were scored together.
    """

    row: int
    index: int
    position: int
    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    sources: tuple[str, ...]
    accepted: tuple[int, ...]
    emitted: tuple[int, ...]
    margins: tuple[float, ...]
    logprobs: tuple[float, ...] | None
    draft_ms: float
    score_ms: float
    accept_ms: float
    observe_ms: float
    alternatives: tuple[tuple[tuple[int, float], ...], ...] | None = None
    ranks: tuple[int, ...] | None = None
    batch_pass: int = 0
    kind: Literal["step"] = "step"


@dataclass(frozen=True)
class CanvasEvent:
    """A pass of the denoise loop that committed something, with the canvas after it.

    Attributes:
        step: pass number, from 0.
        block: block number, from 0.
        slots: token id of each slot; None is a mask.
        committed: slots that were filled.
        confidence: per committed slot, the probability of its token.
        fed: number of scored positions.
        ms: milliseconds in the model.
    """

    row: int
    step: int
    block: int
    slots: tuple[int | None, ...]
    committed: tuple[int, ...]
    confidence: tuple[float, ...]
    fed: int
    ms: float
    kind: Literal["canvas"] = "canvas"


@dataclass(frozen=True)
class ProbeEvent:
    """What a probe read of the tokens that a pass emitted; it comes after the pass.

    Attributes:
        index: number of the pass of this row, as in ``StepEvent``.
        position: absolute position of the first of these tokens.
        probe: its name.
        values: one for each emitted token.
        labels: one for each of them, where the probe has classes; else empty.
    """

    row: int
    index: int
    position: int
    probe: str
    values: tuple[float, ...]
    labels: tuple[str, ...] = ()
    kind: Literal["probe"] = "probe"


@dataclass(frozen=True)
class EndEvent:
    """A request is finished. One that was cancelled or failed before it began has no other event.

    Attributes:
        error: the exception, if the reason is ``"error"``; a trace file stores its text.
    """

    row: int
    reason: FinishReason
    error: Exception | None = None
    kind: Literal["end"] = "end"


Event = StartEvent | PrefillEvent | StepEvent | CanvasEvent | ProbeEvent | EndEvent


def to_json(event: Event) -> dict[str, Any]:
    """The event as plain data, for one line of a JSONL trace.

    JSON has no infinity: a margin without a runner-up becomes None, and so do the log-probability of a token that a
    lossy rule took although the distribution excludes it, and a reading that is not a number.
    """
    if isinstance(event, EndEvent):
        error = {} if event.error is None else {"error": f"{type(event.error).__name__}: {event.error}"}
        return {"row": event.row, "reason": event.reason, "kind": event.kind, **error}
    data = asdict(event)
    for name in ("margins", "logprobs", "values"):
        if data.get(name):
            data[name] = [value if math.isfinite(value) else None for value in data[name]]
    return data
