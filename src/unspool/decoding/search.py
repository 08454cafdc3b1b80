"""Search for the best continuation of one prompt by a named method: the public entry to the search loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from unspool import methods
from unspool.decoding.generate import assemble
from unspool.decoding.loaded import LoadedModel, Prompt
from unspool.engine.autoregressive import check
from unspool.engine.method import DRAFTER, SEARCH, check_reward
from unspool.engine.options import GenerationOptions
from unspool.engine.search import Candidate, OnEvent, Output, SearchRequest
from unspool.engine.trace import FinishReason
from unspool.engine.typed import typed_options
from unspool.errors import UnspoolError
from unspool.methods.search._function_body import FunctionBody
from unspool.methods.search.plan.reward import PublicTests

StopRule = Literal["end_of_text", "function_body"]


@dataclass(frozen=True)
class SearchStatistics:
    """Figures of one search.

    Attributes:
        tokens: tokens of the output.
        passes: forward passes.
        evaluated_tokens: tokens evaluated, without the prompt's; greedy decoding evaluates ``tokens``.
        seconds: duration of the whole search, including the prompt's prefill.
        counts: figures specific to the method.
    """

    tokens: int
    passes: int
    evaluated_tokens: int
    seconds: float
    counts: Mapping[str, float]


@dataclass(frozen=True)
class SearchCandidate:
    """One of the outputs found.

    Attributes:
        text: without special tokens, cut by the stop rule.
        token_ids: emitted ids; the one that ended the text is the last.
        logprob: log-probability of the ids under the model, in nats.
        score: the method's ranking criterion.
        finish_reason: ``stop`` (end of text), ``length`` or ``stopping_criteria`` (the stop rule).
    """

    text: str
    token_ids: list[int]
    logprob: float
    score: float
    finish_reason: FinishReason


@dataclass(frozen=True)
class SearchResult:
    """The result of one search.

    Attributes:
        candidates: outputs, best first, at least one.
        statistics: counts and time.
        prompt_token_ids: ids of the prompt.
        method: the search, as a spec.
        model: the name of the model.
        sandbox: the kernel guards on the programs that were run, see ``unspool.sandbox.run.GUARDS``; None if the
            reward is not ``PublicTests``.
    """

    candidates: list[SearchCandidate] = field(repr=False)
    statistics: SearchStatistics
    prompt_token_ids: list[int] = field(repr=False)
    method: str
    model: str
    sandbox: tuple[str, ...] | None = None

    @property
    def text(self) -> str:
        """Of the best candidate."""
        return self.candidates[0].text

    @property
    def token_ids(self) -> list[int]:
        """Of the best candidate."""
        return self.candidates[0].token_ids

    @property
    def logprob(self) -> float:
        """Of the best candidate."""
        return self.candidates[0].logprob

    @property
    def finish_reason(self) -> FinishReason:
        """Of the best candidate."""
        return self.candidates[0].finish_reason


@typed_options("model", "prompt")
def search(
    model: LoadedModel,
    prompt: Prompt,
    *,
    method: Any = methods.DEFAULTS[SEARCH],
    max_new_tokens: int = 256,
    reward: Callable[[str], float] | None = None,
    stop_rule: StopRule = "end_of_text",
    chat: bool | None = None,
    on_event: OnEvent = lambda event: None,
) -> SearchResult:
    """Search for the best continuation of one prompt.

    Args:
        model: a loaded model.
        prompt: as ``Model.encode`` takes it.
        method: a search, such as ``"beam:num_beams=5"``, see ``methods.spec``.
        max_new_tokens: maximum tokens of an output; the horizon of ``plan``.
        reward: deterministic score of a text, 0 to 1; required by ``plan``, not accepted by other methods.
        stop_rule: ``function_body`` also ends a text at the end of the body of a Python function; the prompt must then
            be its signature and docstring, as text.
        chat: whether to use the chat template for text; by default if the model has one.
        on_event: receives trace events, in the searching thread.

    Raises:
        UnspoolError: for an invalid request, before any work.
    """
    chosen = methods.choose(method, SEARCH)
    check_reward(chosen.row, reward)
    resources = model.resources()
    run = chosen.build(resources)
    tokens = model.encode(prompt, False if chat is None and chosen.row.raw_prompt else chat)
    text, body = partial(model.tokenizer.text, context=model.tokenizer.context(tokens)), None
    if stop_rule == "function_body":
        if not isinstance(prompt, str):
            raise UnspoolError("stop_rule function_body needs the prompt as text")
        body = FunctionBody(text, prompt)

    def text_of(output: Output) -> str:
        return body.cut(text(output)) if body else text(output)

    request = SearchRequest(
        model.language_model,
        tokens,
        max_new_tokens,
        eos=model.eos_token_ids,
        stopping=body or (lambda output: False),
        reward=(lambda output: reward(text_of(output))) if reward else None,
        on_event=on_event,
    )
    _check(request, resources)
    start = time.perf_counter()
    found = run(request)
    seconds = time.perf_counter() - start
    candidates = [_candidate(candidate, text_of) for candidate in found.candidates]
    count = len(candidates[0].token_ids)
    statistics = SearchStatistics(count, found.passes, found.evaluated_tokens, seconds, found.counts)
    guards = reward.guards if isinstance(reward, PublicTests) else None
    return SearchResult(candidates, statistics, tokens, chosen.label, model.name, guards)


def _candidate(candidate: Candidate, text_of: Callable[[Output], str]) -> SearchCandidate:
    output = candidate.token_ids
    return SearchCandidate(text_of(output), list(output), candidate.logprob, candidate.score, candidate.finish_reason)


def _check(request: SearchRequest, resources: methods.Resources) -> None:
    """Reject what the autoregressive loop rejects."""
    options = GenerationOptions(max_new_tokens=request.max_new_tokens)
    plain, rule = methods.choose(methods.PLAIN, DRAFTER), methods.acceptance_rule(None, True, resources)
    check(request.model, assemble(resources, request.prompt, plain, rule, options))
