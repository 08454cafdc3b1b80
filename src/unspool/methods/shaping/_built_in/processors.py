"""Adapter: transformers' ``LogitsProcessor`` objects as shapers.

torch is imported when such a processor is first called, never before; transformers is not imported at all.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unspool.engine.contracts import Logits, Shaper
from unspool.errors import UnspoolError, UnsupportedError

_STATEFUL = {
    "DiaEOSDelayPatternLogitsProcessor",
    "SynthIDTextWatermarkLogitsProcessor",
    "UnbatchedClassifierFreeGuidanceLogitsProcessor",
}


class TorchProcessor:
    """Calls a processor of torch tensors as transformers' ``generate`` does, with a batch of one text.

    Attributes:
        processor: called with ids int64 [1, length] and scores float32 [1, vocabulary], both copies.
    """

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, tokens: NDArray[np.int64], logits: Logits) -> Logits:
        import torch

        with torch.no_grad():
            ids = torch.tensor(tokens, dtype=torch.long)[None]
            scores: Any = self.processor(ids, torch.tensor(logits, dtype=torch.float32)[None])
            shaped: NDArray[np.float32] = scores[0].to("cpu", torch.float32).numpy()
        return shaped


def adapt(processors: Iterable[object]) -> list[Shaper]:
    """Shapers from a mixture of shapers, transformers' processors and lists of either, in their order.

    A processor is recognised by its class, which comes from transformers or inherits from one that does, or by its
    arguments, which are named ``input_ids, scores``; everything else is treated as a shaper of numpy arrays.

    Raises:
        UnsupportedError: for a processor that needs more than the ids and the scores, or that keeps state between
            calls, which drafting makes for texts that do not follow one another.
        UnspoolError: for an object that cannot be called.
    """
    shapers: list[Shaper] = []
    for processor in processors:
        if isinstance(processor, (list, tuple)):
            shapers += adapt(processor)
        elif not callable(processor):
            raise UnspoolError(f"shapers must be callable, but {processor!r} is not; pass a Shaper or LogitsProcessor")
        elif takes_tensors(processor):
            _check(processor)
            shapers.append(TorchProcessor(processor))
        else:
            shapers.append(processor)
    return shapers


def takes_tensors(processor: object) -> bool:
    """Whether ``processor`` works on torch tensors as transformers' processors do."""
    if any(parent.__module__.partition(".")[0] == "transformers" for parent in type(processor).__mro__):
        return True
    return _required(processor)[:2] == ["input_ids", "scores"]


def _check(processor: object) -> None:
    name = type(processor).__name__
    extra = _required(processor)[2:]
    if extra:
        raise UnsupportedError(
            f"{name} needs {', '.join(extra)}, but processors are called with input_ids and scores only; "
            "bind the rest, for example with functools.partial"
        )
    if any(parent.__name__ in _STATEFUL for parent in type(processor).__mro__):
        raise UnsupportedError(
            f"{name} keeps state between calls, which breaks under drafting; use transformers' own generate for it"
        )


def _required(processor: object) -> list[str]:
    """Names of the arguments that a call must pass, without ``self``."""
    try:
        parameters = inspect.signature(processor).parameters.values()  # type: ignore[arg-type]
    except (TypeError, ValueError):  # built-in callables have no signature to read
        return []
    positional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in positional]
