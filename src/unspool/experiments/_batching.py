"""Helpers for batches: prompts decoded as a batch, and the shapes of its passes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from unspool import methods
from unspool.decoding.model import Model
from unspool.engine.autoregressive import Request, decode
from unspool.engine.batch import BatchPlan
from unspool.engine.method import DRAFTER
from unspool.engine.options import GenerationOptions
from unspool.engine.trace import StepEvent
from unspool.reproduce.experiment import Row
from unspool.suites.prompts import Prompt

DRAFTER_SPEC = "prompt_lookup"


def decode_batch(
    model: Model, prompts: Sequence[Prompt], plan: BatchPlan, max_new_tokens: int, longest: int = 512
) -> list[StepEvent]:
    """The passes of all prompts, cut to ``longest`` tokens, decoded greedily with prompt lookup."""
    resources, options = model.resources({}), GenerationOptions(max_new_tokens=max_new_tokens)
    requests = [
        Request(
            model.encode(prompt.text)[:longest],
            methods.build(DRAFTER_SPEC, DRAFTER, resources),
            methods.acceptance_rule(None, True, resources),
            options,
            eos=model.eos_token_ids,
        )
        for prompt in prompts
    ]
    return [event for event in decode(model.language_model, requests, plan) if isinstance(event, StepEvent)]


def digests(steps: Sequence[StepEvent], count: int) -> list[str]:
    """Of the text of each row."""
    texts = [[token for step in steps if step.row == row for token in step.emitted] for row in range(count)]
    return [hashlib.sha256(repr(text).encode()).hexdigest()[:16] for text in texts]


def alignment(steps: Sequence[StepEvent]) -> Row:
    """Of the passes that scored several rows: their number, those of equal lengths, and their slots.

    Returns:
        ``passes``, ``several`` (passes of several rows), ``equal`` (those of them without padding of texts),
        ``padded`` (slots that pad shorter texts to the longest), ``slots`` (of all texts, including padding).
    """
    lengths: dict[int, list[int]] = {}
    for step in steps:
        lengths.setdefault(step.batch_pass, []).append(step.position)
    several = [rows for rows in lengths.values() if len(rows) > 1]
    return {
        "passes": len(lengths),
        "several": len(several),
        "equal": sum(len(set(rows)) == 1 for rows in several),
        "padded": sum(max(rows) - length for rows in several for length in rows),
        "slots": sum(max(rows) * len(rows) for rows in several),
    }
