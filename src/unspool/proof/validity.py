"""Whether methods that promise valid output produce it: fixed tasks, and checkers that share no code with the method.

``grammar`` and samplers: JSON Schemas are checked by ``jsonschema``, regular expressions by Python's ``re``, a grammar
of sums by Python's own parser. ``monitor``: the identifier after a dot is a member of the class, according to its
file's syntax tree. ``extract``: the answer is in the passage, and single-node passes confirm its probability. Output
cut by the length limit is counted separately: nothing is promised for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import numpy as np

from unspool import methods
from unspool.conformance.passes import one_by_one
from unspool.decoding.model import Model
from unspool.engine.method import SAMPLER, SPAN
from unspool.engine.progress import Progress
from unspool.methods import Chosen
from unspool.methods.constraints.grammar import validity as grammar
from unspool.proof.prompts import TEXT
from unspool.proof.result import MethodProof

Outcome = tuple[bool | None, int]
"""Whether an output is valid (None if it was cut), and its tokens."""

SAMPLES = 2
"""Outputs per grammar."""

_ATTEMPTS = 10
"""Maximum attempts per sample."""

QUESTIONS = ("When was the lighthouse built?", "What turns the lens?", "What does the library lend out?")


def check(
    method: Chosen[Any],
    model: Model,
    *,
    temperature: float,
    max_new_tokens: int,
    seed: int,
    allowed: float,
    what: str,
    progress: Progress,
) -> MethodProof:
    """The row of one method.

    Args:
        allowed: maximum deviation of a log-probability from that of plain passes.
        what: label for ``progress``.
    """
    options = {"temperature": temperature, "max_new_tokens": max_new_tokens, "method": methods.WIDE}
    if method.row.kind is SAMPLER:
        outcomes, judge = _samples(model, {**options, "sampler": method.spec, "seed": seed}), grammar.JUDGE
    elif method.row.kind is SPAN:
        outcomes, judge = _extract(model, allowed), "plain passes of one node"
    else:
        tried = import_module(method.row.validity)
        outcomes, judge = tried.outcomes(model, {**options, "seed": seed}), tried.JUDGE
    found: list[Outcome] = []
    for outcome in outcomes:
        progress(what, len(found), len(found) + 1)
        found.append(outcome)
    progress(what, len(found), len(found))
    verdicts = [verdict for verdict, _ in found]
    return MethodProof(
        method.spec,
        method.row.guarantee,
        "validity",
        temperature,
        len(found),
        0,
        sum(tokens for _, tokens in found),
        0,
        verdicts.count(False),
        details={"valid": verdicts.count(True), "cut": verdicts.count(None), "judge": judge},
    )


def _samples(model: Model, options: Mapping[str, Any]) -> Iterator[Outcome]:
    for task in grammar.tasks():
        samples = model.sample(task.prompt, SAMPLES, max_attempts=_ATTEMPTS * SAMPLES, **task.grammar, **options)
        for result in samples.results:
            yield task.verdict(result.text, result.finish_reason), len(result.token_ids)
        for _ in range(samples.cut):
            yield None, 0


def _extract(model: Model, allowed: float) -> Iterator[Outcome]:
    from unspool.decoding.extract import line_ends

    ends = sorted(model.eos_token_ids | line_ends(model.tokenizer))
    for question in QUESTIONS:
        found = model.extract(question, TEXT)
        span = found.spans[0]
        text = [*span.token_ids, ends[0]]
        plain: list[float] = []
        for logits, token in zip(one_by_one(model.language_model, found.prompt_token_ids, text), text, strict=True):
            row = logits.astype(np.float64)
            here = row[ends] if len(plain) == len(span.token_ids) else row[[token]]
            plain.append(float(np.logaddexp.reduce(here) - np.logaddexp.reduce(row)))
        stands = " ".join(TEXT[span.start : span.end].split()) == model.tokenizer.decode(span.token_ids).strip()
        yield stands and bool(np.allclose(plain, span.logprobs, rtol=0, atol=allowed)), len(span.token_ids)
