"""How far the output of lossy methods is from plain decoding's. They promise nothing, so no difference is a fault.

A shaper decodes like plain decoding, with the same seed. A search decodes once and is compared with greedy decoding.
``edit`` removes a word from the middle of each prompt and continues from the moved cache; it is compared with the same
text encoded from scratch.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, median
from typing import Any

import numpy as np

from unspool import methods
from unspool.conformance.passes import at_once
from unspool.decoding.model import Model
from unspool.engine.contracts import LanguageModel
from unspool.engine.method import SEARCH
from unspool.methods import Chosen
from unspool.proof.identity import first_difference
from unspool.proof.result import MethodProof

EDITED_TOKENS = 32
"""Maximum tokens of a text after an edit: longer ones diverge at some point and show nothing more."""


def decode(method: Chosen[Any], model: Model, prompt: Sequence[int], options: dict[str, Any]) -> list[int]:
    """The method's output for a prompt.

    Args:
        method: a shaper or a search.
        options: ``temperature``, ``seed`` and ``max_new_tokens``.
    """
    if method.row.kind is SEARCH:
        return model.search(
            prompt,
            method=method.spec,
            max_new_tokens=options["max_new_tokens"],
        ).token_ids
    return model.generate(prompt, method=methods.PLAIN, shapers=[method.spec], **options).token_ids


def edited(model: Model, prompt: str, max_new_tokens: int) -> tuple[Sequence[int], list[int], list[int]]:
    """A prompt without its middle word: its ids, and its continuations from scratch and from a moved cache."""
    start, stop = middle(prompt)
    outputs: list[list[int]] = []
    tokens: Sequence[int] = ()
    for mode in ("recompute", "pie"):
        text = model.edit(prompt, mode=mode)
        try:
            text.replace(start, stop, "")
            tokens = text.tokens
            outputs.append(
                text.generate(method=methods.PLAIN, max_new_tokens=min(max_new_tokens, EDITED_TOKENS)).token_ids
            )
        finally:
            text.close()
    return tokens, outputs[0], outputs[1]


def middle(prompt: str) -> tuple[int, int]:
    """Span of the middle word; of a single word, its middle character; of a single character, an empty span."""
    words = prompt.split(" ")
    if len(words) == 1:
        return len(prompt) // 2, len(prompt) // 2 + (len(prompt) > 1)
    start = len(" ".join(words[: len(words) // 2]))
    return start, start + 1 + len(words[len(words) // 2])


def row(
    method: Chosen[Any],
    model: LanguageModel,
    temperature: float,
    prompts: Sequence[Sequence[int]],
    plain: Sequence[Sequence[int]],
    other: Sequence[Sequence[int]],
    reference: str,
) -> MethodProof:
    """Compare outputs, and the model's own log-probability per token of both, in nats."""
    places = [first_difference(a, b) for a, b in zip(plain, other, strict=True)]
    parted = [place for place in places if place is not None]
    details: dict[str, float | int | str] = {"compared_with": reference}
    if parted:
        details["first_difference_median"] = float(median(parted))
    for name, outputs in (("logprob", other), ("logprob_reference", plain)):
        details[name] = mean(_logprob(model, prompt, ids) for prompt, ids in zip(prompts, outputs, strict=True))
    return MethodProof(
        method.spec,
        method.row.guarantee,
        "distance",
        temperature,
        len(places),
        places.count(None),
        sum(len(ids) if place is None else place + 1 for ids, place in zip(other, places, strict=True)),
        0,
        0,
        details=details,
    )


def _logprob(model: LanguageModel, prompt: Sequence[int], output: Sequence[int]) -> float:
    """Mean per token; 0 for an empty output."""
    total = 0.0
    for logits, token in zip(at_once(model, prompt, output), output, strict=True):
        total += float(logits[token] - np.logaddexp.reduce(logits.astype(np.float64)))
    return total / max(len(output), 1)
