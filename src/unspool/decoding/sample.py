"""Draw samples for one prompt from the model's own distribution over the texts of a grammar."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from unspool import methods
from unspool.decoding.generate import requests
from unspool.decoding.loaded import LoadedModel, Prompt
from unspool.decoding.parsing import read
from unspool.decoding.request import GenerationArguments
from unspool.decoding.results import Result
from unspool.engine.autoregressive import decode
from unspool.engine.method import CONSTRAINT, DRAFTER, SAMPLER
from unspool.engine.progress import Progress, silent
from unspool.engine.trace import FinishReason
from unspool.engine.typed import typed_options
from unspool.errors import UnspoolError
from unspool.methods.sampling._aligned import AlignedOptions, AlignedShaper
from unspool.methods.sampling._trie import AlignedTrie
from unspool.models import identity

MOST_SAMPLES = 100_000
"""Maximum samples of one call; more is a typing error."""
_ATTEMPTS = 100
"""Default attempts per sample."""


@dataclass(frozen=True)
class Samples:
    """The result of ``sample``.

    Attributes:
        results: the samples in the order they were drawn; ``parsed`` as under ``grammar``. Fewer than requested if the
            attempts ran out.
        attempts: runs of the model.
        rejected: attempts that drew a token which the grammar does not allow (only ``cars``).
        cut: attempts that reached the length limit; they are not in the language.
        passes: forward passes over all attempts.
        trie: what was learned; pass it to the next call to continue.
        method: the sampler.
        model: the name of the model.
    """

    results: list[Result] = field(repr=False)
    attempts: int
    rejected: int
    cut: int
    passes: int
    trie: AlignedTrie = field(repr=False)
    method: str
    model: str


@typed_options("model", "prompt")
def sample(
    model: LoadedModel,
    prompt: Prompt,
    num_samples: int,
    *,
    sampler: str = methods.DEFAULTS[SAMPLER],
    temperature: float = 1.0,
    max_new_tokens: int = 256,
    seed: int = 0,
    method: Any = methods.DEFAULTS[DRAFTER],
    chat: bool | None = None,
    trie: AlignedTrie | None = None,
    max_attempts: int | None = None,
    progress: Progress = silent,
    **grammar: Any,
) -> Samples:
    """Draw texts of a grammar with the probabilities that the model itself gives them.

    Args:
        sampler: ``cars`` (exact and independent, more attempts) or ``asap`` (every attempt counts, exact in the limit).
        temperature: of the target distribution, above 0.
        max_new_tokens: longer texts are not in the language.
        seed: attempt i draws its noise from (seed, i).
        method: drafter; it changes only the speed.
        trie: what earlier calls learned with the same prompt, grammar, temperature and model.
        max_attempts: 100 a sample if None.
        progress: receives the number of samples after each attempt.
        **grammar: one of ``json_schema``, ``regex``, ``grammar`` and ``choices``.

    Raises:
        UnspoolError: for invalid arguments, before any work, and if no text of the grammar has any probability.
    """
    row, options = check(num_samples, sampler, temperature, max_attempts, grammar)
    resources = model.resources()
    ids = model.encode(prompt, chat)
    key = identity.loaded(model.key, model.language_model.settings)
    about = hashlib.sha256(json.dumps([key, ids, options.compiled(), temperature]).encode()).hexdigest()
    trie = AlignedTrie(about) if trie is None else trie
    if trie.about != about:
        raise UnspoolError("this trie belongs to another model, prompt, grammar or temperature; start with a new one")
    checker = methods.build(methods.DEFAULTS[CONSTRAINT], CONSTRAINT, resources, grammar)(ids)
    limit = _ATTEMPTS * num_samples if max_attempts is None else max_attempts
    results: list[Result] = []
    attempts = rejected = cut = passes = 0
    while len(results) < num_samples and attempts < limit:
        shaper = row.build(resources, options)(trie, checker, len(ids), temperature)
        arguments = GenerationArguments(
            method=method,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            seed=_seed(seed, attempts),
            shapers=[shaper],
        )
        result, legal = _draw(model, ids, shaper, arguments)
        shaper.finish()
        attempts += 1
        passes += result.statistics.passes
        if not legal:
            rejected += 1
        elif result.finish_reason == "stop":
            parsed, parse_error = read(options.parse, result.text)
            results.append(replace(result, parsed=parsed, parse_error=parse_error))
        else:
            cut += 1
        progress("samples", len(results), num_samples)
    return Samples(results, attempts, rejected, cut, passes, trie, row.name, model.name)


def check(
    num_samples: int, sampler: str, temperature: float, max_attempts: int | None, grammar: Mapping[str, Any]
) -> tuple[methods.Row, AlignedOptions]:
    """The row of a sampler, its options, and the grammar.

    Args:
        num_samples, sampler, temperature, max_attempts, grammar: see ``sample``.

    Raises:
        UnspoolError: for invalid arguments.
    """
    if not 1 <= num_samples <= MOST_SAMPLES:
        raise UnspoolError(f"num_samples must lie in 1 to {MOST_SAMPLES:,}, not {num_samples}")
    if not 0 < temperature < math.inf:
        raise UnspoolError("a sampler needs a temperature above 0; for the most likely text use generate")
    if max_attempts is not None and max_attempts < 1:
        raise UnspoolError(f"max_attempts must be at least 1, not {max_attempts}")
    row = methods.find(sampler, SAMPLER)
    return row, methods.make_options(row, grammar)


def _draw(
    model: LoadedModel, ids: list[int], shaper: AlignedShaper, arguments: GenerationArguments
) -> tuple[Result, bool]:
    """One attempt, and whether all of its tokens are allowed."""
    (prepared,) = requests(model, [ids], arguments)
    text: list[int] = []

    def stopping(token: int) -> FinishReason | None:
        text.append(token)
        return None if shaper.is_allowed(text) else "stopping_criteria"

    result = prepared.result(list(decode(model.language_model, [replace(prepared.request, stopping=stopping)])))
    return result, result.finish_reason != "stopping_criteria" and shaper.is_allowed(result.token_ids)


def _seed(seed: int, attempt: int) -> int:
    """The seed of one attempt; attempts of different seeds share it only by chance."""
    return int(np.random.SeedSequence([seed, attempt]).generate_state(1)[0])
