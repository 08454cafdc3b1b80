"""Any method under any options on a table, against plain decoding by code that shares nothing with the engine.

Tokens, text, reason, log-probabilities and margins; batches, plans and memories that other requests have filled;
streams, whole and abandoned. ``lossless`` is held to the same wherever its drafter draws nothing.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from tests.fuzz import cases, reference, tables
from tests.fuzz.cases import Case
from tests.fuzz.reference import NothingLeftError, Processors
from tests.fuzz.tables import EOS, SIZE, Table
from tests.trained import acceptance_head
from unspool import methods
from unspool.decoding.model import Model
from unspool.decoding.results import Result
from unspool.engine.method import DRAFTER
from unspool.engine.trace import StartEvent, StepEvent
from unspool.errors import UnspoolError
from unspool.training.artifact import file_of

QUICK, NIGHTLY = 50, 2000


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A head of ``specdec_pp`` that nobody trained."""
    directory: Path = tmp_path_factory.mktemp("head")
    weight = np.zeros((2, SIZE), np.float32)
    weight[1] = 2 * np.random.default_rng(0).standard_normal(SIZE)
    made = acceptance_head({"output.weight": weight, "output.bias": np.zeros(2, np.float32)})
    made.save(file_of(directory, made.method))
    return str(directory)


def loaded(rng: Random, max_length: int) -> tuple[Model, Table]:
    zeros = rng.choice([0.0, 0.0, 0.0, 0.3])
    target = Table.drawn(
        rng.randrange(10**6),
        order=2 if zeros else rng.choice([1, 2, 2]),
        steep=rng.choice([1.0, 2.0, 4.0]),
        ends=rng.choice([0.1 if zeros else 0.0, 0.3, 1.0]),
        zeros=zeros,
        max_length=max_length,
        section=rng.choice([0, 0, 7, 16]),
        block_max=rng.random() < 0.4,
    )
    noise = rng.choice([0.0, 0.2, 0.8, 3.0])
    draft = target.near(noise, rng.randrange(10**6), rng.choice([max_length, 24]), rng.choice([0, 5]))
    return tables.model(target, draft, rng.choice([0.0, 0.2])), target


def follows_plain(case: Case) -> bool:
    """Whether the case promises plain decoding's text, and not its distribution alone."""
    row = methods.find(case.method, DRAFTER)
    inner = case.options.get("drafter")
    draws = methods.find(inner, DRAFTER).draws if inner else row.draws
    return case.call.get("acceptance") != "lossless" or case.shaping["temperature"] == 0 or not draws


def expected(target: Table, case: Case, prompt: list[int], seed: int, length: int) -> reference.Decoded:
    eos = [EOS] if case.eos is None else case.eos
    processors = Processors(case.shaping, len(prompt), eos, case.custom)
    return reference.decode(
        target.row,
        prompt,
        processors,
        greedy=case.shaping["temperature"] == 0,
        seed=seed,
        length=length,
        eos=eos,
        ends=lambda tokens: any(string in tables.text_of(tokens) for string in case.stop),
    )


def differences(case: Case, target: Table, prompt: list[int], result: Result) -> list[str]:
    """What of a result plain decoding does not give."""
    start = result.trace[0]
    assert isinstance(start, StartEvent)
    wanted = expected(target, case, prompt, start.seed, case.length)
    text = tables.text_of(wanted.tokens)
    if wanted.reason == "stop_string":
        text = text[: min(text.find(string) for string in case.stop if string in text)]
    steps = [event for event in result.trace if isinstance(event, StepEvent)]
    margins = [margin for step in steps for margin in step.margins]
    found = []
    if result.token_ids != wanted.tokens:
        return [f"tokens {result.token_ids} != {wanted.tokens}"]
    if (result.finish_reason, result.text) != (wanted.reason, text):
        found.append(f"{result.finish_reason} {result.text!r} != {wanted.reason} {text!r}")
    if not np.allclose(margins, wanted.margins, atol=1e-4, rtol=1e-4):
        found.append(f"margins {margins} != {wanted.margins}")
    if result.logprobs is not None and not np.allclose(result.logprobs, wanted.logprobs, atol=2e-5, rtol=1e-5):
        found.append(f"logprobs {result.logprobs} != {wanted.logprobs}")
    if not result.statistics.tokens == len(result.token_ids) == sum(len(step.emitted) for step in steps):
        found.append("the trace counts other tokens")
    return found


def impossible(case: Case, target: Table, prompt: list[int], result: Result) -> list[str]:
    """Tokens that cannot be drawn."""
    processors = Processors(case.shaping, len(prompt), [EOS] if case.eos is None else case.eos, case.custom)
    tokens = list(prompt)
    for token in result.token_ids:
        if processors(tokens, target.row(tokens))[token] == -np.inf:
            return [f"token {token} cannot follow {tokens}"]
        tokens.append(token)
    return []


def run(case: Case, model: Model, target: Table) -> list[str]:
    """Differences of one case; none where both find that no token may follow."""
    ids = [model.encode(prompt, chat=False) for prompt in case.prompts]
    arguments = case.arguments()
    if case.warm:
        with suppress(UnspoolError):  # no token may follow
            other = {**arguments, "seed": 5, "stop": [], "batch": None}
            model.generate(case.prompts[0][::-1], **other)
    follows = follows_plain(case)
    try:
        found = model.generate(case.prompts if case.batch else case.prompts[0], **arguments)
    except UnspoolError as error:
        assert "no token may follow" in str(error), error
        return [] if not follows or nothing_left(case, target, ids) else ["nothing was left, says unspool alone"]
    results = found if case.batch else [found]
    problems: list[str] = []
    for number, (prompt, result) in enumerate(zip(ids, results, strict=True)):
        try:
            check = differences if follows else impossible
            problems += [f"row {number}: {problem}" for problem in check(case, target, prompt, result)]
        except NothingLeftError:
            problems.append(f"row {number}: nothing was left, says the reference alone")
    if not case.batch and follows and not problems:
        problems += streamed(model, case.prompts[0], arguments, results[0])
    return problems


def nothing_left(case: Case, target: Table, ids: list[list[int]]) -> bool:
    from unspool.engine import noise

    derive = getattr(noise, "row_seed", lambda seed, row: seed)
    for row, prompt in enumerate(ids):
        try:
            expected(target, case, prompt, derive(case.seed, row), case.length)
        except NothingLeftError:
            return True
    return False


def streamed(model: Model, prompt: str, arguments: dict[str, Any], result: Result) -> list[str]:
    """A stream that is read, and one that is abandoned, against the result."""
    stream = model.stream(prompt, **arguments)
    text = "".join(stream)
    abandoned = model.stream(prompt, **arguments)
    for _ in abandoned:
        break
    again = model.generate(prompt, **arguments)
    tokens = [one.token_ids for one in (result, stream.result, again)]
    problems = [] if tokens[0] == tokens[1] == tokens[2] else [f"streams {tokens}"]
    return problems + ([] if text == stream.result.text else [f"streamed {text!r} != {stream.result.text!r}"])


def fuzz(seeds: range, head: str) -> None:
    failed = []
    for seed in seeds:
        rng = Random(seed)
        max_length = rng.choice([64, 512, 512])
        model, target = loaded(rng, max_length)
        case = cases.draw(rng, max_length, head)
        if problems := run(case, model, target):
            failed.append(f"case {seed}: {problems[:3]} of {case}")
    assert not failed, f"{len(failed)} of {len(seeds)} differ:\n" + "\n".join(failed[:5])


def test_a_few_cases(head: str) -> None:
    fuzz(range(QUICK), head)


@pytest.mark.nightly
def test_many_cases(head: str) -> None:
    fuzz(range(QUICK, QUICK + NIGHTLY), head)
