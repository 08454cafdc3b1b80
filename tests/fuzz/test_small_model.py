"""Any method under any options on SmolLM2, against plain decoding whose rows transformers shapes and whose noise is
drawn here."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import numpy as np
import pytest
from transformers.generation import logits_process as theirs

import unspool
from tests.fuzz import reference
from tests.fuzz.cases import DRAFTERS
from tests.fuzz.reference import Processors
from tests.specs import spec
from unspool import methods
from unspool.decoding.model import Model
from unspool.decoding.results import Result
from unspool.engine.cost import CostCurve, PassCosts
from unspool.engine.method import DRAFTER
from unspool.engine.trace import StartEvent, StepEvent
from unspool.engine.tree import TokenTree

pytestmark = pytest.mark.model

QUICK, NIGHTLY = 3, 60
TIE = 1e-3
"""Margin below which rounding may flip a choice, on machines whose logits depend on the width of a pass."""

PROMPTS = (
    "List three colours, then list the same three colours again.",
    "Repeat exactly: a b c a b c a b c a b c a b c",
    "日本語で自己紹介をしてください。",
    "Write five emojis and their names: 🐙🌍",
    "1, 2, 3, 4, 5, 6,",
    "def fib(n):\n    if n < 2:\n        return n\n    return fib(n-1) + fib(n-2)\n\ndef fib(n):",
    "Hi",
    "The quick brown fox jumps over the lazy dog. " * 12 + "Continue.",
    '{"name": "Ann", "age": 3}\n{"name": "Bob", "age": 4}\n{',
)
STOPS = ("\n", ".", " the", "e", "```", "def", "\n\n", "1", "a b", "zzzz", "!", ", ")
SEEDS = (0, 3, 2**64 - 1, 99)


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    made = unspool.load("smollm2-135m", assistant_model="smollm2-135m", threads=1)
    made._costs = PassCosts(CostCurve((1, 8, 64), (32,), ((10.0, 11.0, 40.0),)))
    yield made


def method_options(rng: Random, name: str) -> dict[str, Any]:
    """Small trees: a pass takes milliseconds here."""
    many = rng.randint
    lowest = many(1, 3)
    made: dict[str, dict[str, Any]] = {
        "token_recycling": {"nodes": rng.choice([3, 8, 16, 80]), "k": rng.choice([4, 8])},
        "aded": {"nodes": many(1, 24), "iterations": rng.choice([10, 60])},
        "stand": {"nodes": rng.choice([4, 12, 40])},
        "rsd": {"num_beams": many(1, 4), "draft_length": many(1, 4)},
        "dyspec": {"num_assistant_tokens": many(2, 10), "threshold": rng.choice([None, 0.3, 0.05])},
        "rasd": {"drafter": rng.choice(["plain", "draft_model", "token_recycling", "suffix"]), "nodes": many(4, 20)},
        "specdec_pp": {"min_assistant_tokens": lowest, "num_assistant_tokens": many(lowest, 10)},
        "pearl": {"num_assistant_tokens": many(1, 6), "overlap": rng.random() < 0.5},
        "draft_model": {"num_assistant_tokens": many(1, 8)},
    }
    return made.get(name, {})


def shaping(rng: Random, vocab_size: int) -> dict[str, Any]:
    def token() -> int:
        return rng.randrange(3, vocab_size)

    possible: list[tuple[float, str, Any]] = [
        (0.3, "top_k", rng.choice([1, 2, 20, 50, 100000])),
        (0.3, "top_p", rng.choice([1e-6, 0.5, 0.9, 0.95, 0.9999])),
        (0.2, "min_p", rng.choice([0.02, 0.1, 1.0])),
        (0.15, "typical_p", rng.choice([0.2, 0.9])),
        (0.3, "repetition_penalty", rng.choice([0.8, 1.1, 1.3, 3.0])),
        (0.2, "no_repeat_ngram_size", rng.choice([2, 3])),
        (0.15, "bad_words_ids", [[token()], [28, 198]]),
        (0.15, "sequence_bias", {(token(),): 4.0, (28, 216): -5.0, (30,): 2.0}),
    ]
    chosen = {name: value for chance, name, value in possible if rng.random() < chance}
    return {"temperature": rng.choice([0.0, 0.0, 0.5, 0.8, 1.0, 1.5, 5.0]), **chosen}


def expected(
    model: Model, ids: list[int], options: dict[str, Any], custom: list[Any], seed: int, length: int, stop: list[str]
) -> tuple[str, reference.Decoded]:
    """Text and tokens, decoded from the model's own bare passes."""
    session = model.language_model.open()
    eos = sorted(model.eos_token_ids)
    held = 0

    def logits(tokens: list[int]) -> np.ndarray:
        nonlocal held
        fed = tokens[held:]
        for start in range(0, len(fed) - 1, 128):
            block = fed[start : min(start + 128, len(fed) - 1)]
            session.score(TokenTree.chain(block), rows=())
            session.commit(range(len(block)))
        row = session.score(TokenTree.chain(fed[-1:])).logits[0].copy()
        session.commit([0])
        held = len(tokens)
        return row

    out = reference.decode(
        logits,  # type: ignore[arg-type]
        ids,
        Processors(options, len(ids), eos, custom),
        greedy=options["temperature"] == 0,
        seed=seed,
        length=length,
        eos=eos,
        ends=lambda tokens: any(string in model.tokenizer.decode(list(tokens)) for string in stop),
    )
    session.close()
    text = model.tokenizer.decode(out.tokens)
    return (text[: min(text.find(s) for s in stop if s in text)] if out.reason == "stop_string" else text), out


def differences(result: Result, text: str, wanted: reference.Decoded) -> list[str]:
    pairs = zip(result.token_ids, wanted.tokens, strict=False)
    first = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(result.token_ids), len(wanted.tokens)))
    if result.token_ids != wanted.tokens:
        tie = first < len(wanted.margins) and wanted.margins[first] < TIE
        return [] if tie else [f"tokens differ at {first}: {result.token_ids} != {wanted.tokens}"]
    found = []
    if (result.finish_reason, result.text) != (wanted.reason, text):
        found.append(f"{result.finish_reason} {result.text!r} != {wanted.reason} {text!r}")
    margins = [margin for event in result.trace if isinstance(event, StepEvent) for margin in event.margins]
    if not np.allclose(margins, wanted.margins, atol=TIE):
        found.append(f"margins {margins} != {wanted.margins}")
    if result.logprobs is not None and not np.allclose(result.logprobs, wanted.logprobs, atol=2e-3, rtol=1e-4):
        found.append(f"logprobs {result.logprobs} != {wanted.logprobs}")
    return found


def problems(model: Model, case: int) -> list[str]:
    """What of one random call is not plain decoding's."""
    rng = Random(case)
    name = rng.choice(DRAFTERS)
    options = shaping(rng, model.language_model.vocab_size)
    custom: list[Any] = [theirs.SuppressTokensLogitsProcessor([28, 30])] if rng.random() < 0.1 else []
    stop = rng.sample(STOPS, rng.randint(1, 2)) if rng.random() < 0.4 else []
    length, seed, chat = rng.choice([1, 2, 4, 12, 24]), rng.choice(SEEDS), rng.random() < 0.6
    rows = rng.choice([0, 0, 0, 2, 3])
    prompts = [rng.choice(PROMPTS) for _ in range(max(1, rows))]
    call: dict[str, Any] = {"method": spec(name, own := method_options(rng, name)), "chat": chat, "stop": stop}
    call |= {"logprobs": rng.random() < 0.5, "max_new_tokens": length, "seed": seed, **options}
    if custom:
        call["shapers"] = custom
    lossless = rng.random() < 0.2
    if lossless:
        call["acceptance"] = "lossless"
    if rows and rng.random() < 0.6:
        call |= {"batch": spec("eqspec", {"batch_size": rng.randint(1, 2)})}
    made = model.generate(prompts if rows else prompts[0], **call)
    results = made if rows else [made]
    drawn = methods.find(own.get("drafter", name), DRAFTER).draws
    if lossless and drawn and options["temperature"] > 0:
        return []  # a distribution, which tables are for
    found = []
    for row, (prompt, result) in enumerate(zip(prompts, results, strict=True)):
        start = result.trace[0]
        assert isinstance(start, StartEvent)
        text, wanted = expected(model, model.encode(prompt, chat), options, custom, start.seed, length, stop)
        found += [f"case {case}, row {row}: {one} of {call}" for one in differences(result, text, wanted)]
    if not rows and not found:
        stream = model.stream(prompts[0], **call)
        pieces = "".join(stream)
        if (pieces, stream.result.token_ids) != (results[0].text, results[0].token_ids):
            found.append(f"case {case}: streamed {pieces!r} != {results[0].text!r}")
    return found


def test_a_few_calls(model: Model) -> None:
    assert not [one for case in range(QUICK) for one in problems(model, case)]


@pytest.mark.nightly
def test_many_calls(model: Model) -> None:
    assert not [one for case in range(QUICK, QUICK + NIGHTLY) for one in problems(model, case)]
