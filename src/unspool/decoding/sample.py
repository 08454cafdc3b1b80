"""Many samples of one prompt from the model's own distribution over the texts of a grammar."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from unspool import methods
from unspool.decoding.parsing import read
from unspool.engine.autoregressive import decode
from unspool.engine.method import CONSTRAINT, DRAFTER, SAMPLER
from unspool.engine.trace import FinishReason
from unspool.engine.typed import typed_options
from unspool.errors import UnspoolError
from unspool.methods.sampling._aligned import AlignedShaper
from unspool.methods.sampling._trie import AlignedTrie
from unspool.models import identity

if TYPE_CHECKING:
    from unspool.decoding.model import Model, Prompt
    from unspool.decoding.results import Result

MOST_SAMPLES = 100_000
"""Of one call; more is a slip of the keyboard."""
_ATTEMPTS = 100
"""Attempts a sample, by default."""


@dataclass(frozen=True)
class Samples:
    """What ``sample`` gave.

    Attributes:
        results: the samples in the order of their making; ``parsed`` as under ``grammar``. Fewer than asked for if the
            attempts ran out.
        attempts: runs of the model.
        rejected: of them, those that took a token which the grammar does not allow (``cars`` alone).
        cut: of them, those that the length limit ended; they are in no language.
        passes: of the model, over all attempts.
        trie: what was learned; give it to the next call to go on.
    """

    results: list[Result] = field(repr=False)
    attempts: int
    rejected: int
    cut: int
    passes: int
    trie: AlignedTrie = field(repr=False)


@typed_options("model", "prompt")
def sample(
    model: Model,
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
    progress: Callable[[int, int], None] = lambda done, attempts: None,
    **grammar: Any,
) -> Samples:
    """Draw texts of a grammar with the probabilities that the model itself gives them.

    Args:
        sampler: ``cars`` (exact and independent, more attempts) or ``asap`` (every attempt counts, exact in the limit).
        temperature: above 0; of the distribution that is meant.
        max_new_tokens: longer texts are not of the language.
        seed: attempt i draws its noise from (seed, i).
        method: drafter; changes speed alone.
        trie: what earlier calls learned of the same prompt, grammar, temperature and model.
        max_attempts: 100 a sample if None.
        progress: told samples and attempts so far.
        **grammar: one of ``json_schema``, ``regex``, ``grammar`` and ``choices``.

    Raises:
        UnspoolError: for what cannot be used, before any work, and if no text of the grammar has any probability.
    """
    if not 1 <= num_samples <= MOST_SAMPLES:
        raise UnspoolError(f"num_samples must lie in 1 to {MOST_SAMPLES:,}, not {num_samples}")
    if temperature <= 0:
        raise UnspoolError("a sampler needs a temperature above 0; for the likeliest text use generate()")
    row = methods.find(sampler, SAMPLER)
    surroundings = model.surroundings()
    options = methods.make_options(row, grammar)
    ids = model.encode(prompt, chat)
    key = identity.loaded(model.key, model.language_model.settings)
    about = hashlib.sha256(json.dumps([key, ids, options.compiled(), temperature]).encode()).hexdigest()
    trie = AlignedTrie(about) if trie is None else trie
    if trie.about != about:
        raise UnspoolError("this trie belongs to another model, prompt, grammar or temperature; begin with a new one")
    checker = methods.build(methods.DEFAULTS[CONSTRAINT], CONSTRAINT, surroundings, grammar)(ids)
    limit = _ATTEMPTS * num_samples if max_attempts is None else max_attempts
    results: list[Result] = []
    attempts = rejected = cut = passes = 0
    while len(results) < num_samples and attempts < limit:
        shaper = row.build(surroundings, options)(trie, checker, len(ids), temperature)
        result, legal = _draw(
            model,
            ids,
            shaper,
            method=method,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            seed=_seed(seed, attempts),
        )
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
        progress(len(results), attempts)
    return Samples(results, attempts, rejected, cut, passes, trie)


def _draw(model: Model, ids: list[int], shaper: AlignedShaper, **options: Any) -> tuple[Result, bool]:
    """One attempt, and whether all of its tokens may be there."""
    (request,), _ = model._requests([ids], shapers=[shaper], **options)
    text: list[int] = []

    def stopping(token: int) -> FinishReason | None:
        text.append(token)
        return None if shaper.permits(text) else "stopping_criteria"

    result = model._result(list(decode(model.language_model, [replace(request, stopping=stopping)])), request, None)
    return result, result.finish_reason != "stopping_criteria" and shaper.permits(result.token_ids)


def _seed(seed: int, attempt: int) -> int:
    """Of one attempt; no two attempts of any seeds share it but by chance."""
    return int(np.random.SeedSequence([seed, attempt]).generate_state(1)[0])
