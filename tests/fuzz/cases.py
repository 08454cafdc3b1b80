"""Random requests: a method, its options, shaping, stop strings, lengths, seeds, batches and plans."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

from transformers.generation import logits_process as theirs

from tests.fuzz.tables import SIZE
from tests.specs import spec
from unspool import methods
from unspool.engine.method import DRAFTER

DRAFTERS = [name for name, row in methods.methods().items() if row.kind is DRAFTER]

_INNER = ("plain", "draft_model", "stand", "aded", "token_recycling", "suffix", "prompt_lookup", "rsd", "dyspec")
_STOPS = ("a", "b", "co", "a=", "x(", "é", "€", "a=1", "\n", "ab", "éa", "zzz", "=(", "(", "aab", "1€")
_SEEDS = (0, 1, 7, 2**63, 2**64 - 1, 123456789)


@dataclass(frozen=True)
class Case:
    """One call.

    Attributes:
        prompts: one text, or those of a batch.
        shaping: options of both libraries.
        custom: processors of transformers.
        call: everything else that ``generate`` takes.
        warm: whether another request comes first.
    """

    method: str
    options: dict[str, Any]
    prompts: list[str]
    batch: bool
    shaping: dict[str, Any]
    custom: list[Any]
    length: int
    seed: int
    eos: list[int] | None
    stop: list[str]
    warm: bool
    call: dict[str, Any] = field(default_factory=dict)

    def arguments(self) -> dict[str, Any]:
        """Of ``generate``."""
        more: dict[str, Any] = {"shapers": self.custom} if self.custom else {}
        if self.eos is not None:
            more["eos_token_id"] = self.eos
        return {
            "method": spec(self.method, self.options),
            "max_new_tokens": self.length,
            "seed": self.seed,
            "stop": self.stop,
            "chat": False,
            **self.shaping,
            **self.call,
            **more,
        }


def method_options(rng: Random, name: str, head: str) -> dict[str, Any]:
    """Of one drafter; a third of the time none."""
    if rng.random() < 0.35:
        return {}
    many = rng.randint
    lowest = many(1, 6)
    made: dict[str, dict[str, Any]] = {
        "token_recycling": {"k": rng.choice([2, 4, 8]), "nodes": many(1, 80)},
        "aded": {"nodes": many(1, 64), "iterations": rng.choice([1, 10, 60]), "increment": rng.choice([0, 0.04, 3])},
        "stand": {"nodes": many(1, 80), "orders": rng.choice([(4, 3, 2), (4, 3, 2, 1), (2,)])},
        "rsd": rng.choice(
            [
                {"tree": "beam", "num_beams": many(1, 9), "draft_length": many(1, 8)},
                {"tree": "constant", "branching": [many(1, 5) for _ in range(many(1, 4))]},
            ]
        ),
        "dyspec": {"num_assistant_tokens": many(1, 40), "draft_temperature": rng.choice([0.1, 0.6, 1.0, 3.0])}
        | ({"threshold": rng.choice([1.0, 0.5, 0.01, 1e-6])} if rng.random() < 0.5 else {}),
        "rasd": {
            "drafter": rng.choice(_INNER),
            "nodes": many(1, 60),
            "retrieved_nodes": many(1, 30),
            "continuation": many(1, 15),
            "prune_top_k": rng.choice([0, 1, 5, 10]),
            "trusted_match": rng.choice([None, many(2, 8)]),
        },
        "specdec_pp": {
            "min_assistant_tokens": lowest,
            "num_assistant_tokens": many(lowest, 20),
            "stop_threshold": rng.random(),
            "head": rng.choice([None, head]),
        },
        "pearl": {"num_assistant_tokens": many(1, 9), "overlap": rng.random() < 0.5},
        "draft_model": {"num_assistant_tokens": many(1, 12)},
        "auto": {
            "candidates": rng.choice([1, 4, 32, 64]),
            "forget": rng.choice([0.5, 0.98]),
            "prior_weight": rng.choice([0.1, 8.0]),
        },
    }
    return made.get(name, {})


def shaping(rng: Random) -> dict[str, Any]:
    """Options that shape logits."""

    def ids(low: int) -> list[int]:
        return [rng.randrange(low, SIZE) for _ in range(rng.randint(1, 3))]

    possible: list[tuple[float, str, Any]] = [
        (0.3, "top_k", rng.choice([1, 2, 3, 10, SIZE, 999])),
        (0.3, "top_p", rng.choice([1e-9, 0.01, 0.3, 0.7, 0.9, 0.999, 1.0])),
        (0.25, "min_p", rng.choice([0.0, 0.01, 0.1, 0.6, 1.0])),
        (0.2, "typical_p", rng.choice([0.05, 0.3, 0.9, 1.0])),
        (0.35, "repetition_penalty", rng.choice([0.5, 1.0, 1.05, 1.3, 2.0, 20.0])),
        (0.2, "no_repeat_ngram_size", rng.choice([2, 3, 4])),
        (0.2, "bad_words_ids", [ids(1) for _ in range(rng.randint(1, 4))]),
        (0.2, "sequence_bias", {tuple(ids(0)): rng.choice([-5.0, -1.0, 2.0, 6.0]) for _ in range(rng.randint(1, 4))}),
    ]
    chosen = {name: value for chance, name, value in possible if rng.random() < chance}
    return {"temperature": rng.choice([0.0, 0.0, 1e-6, 0.3, 0.8, 1.0, 1.0, 1.3, 5.0]), **chosen}


def custom(rng: Random) -> list[Any]:
    """A processor of transformers, one time in seven."""
    if rng.random() > 0.15:
        return []
    return [
        rng.choice(
            [
                theirs.SuppressTokensLogitsProcessor([rng.randrange(1, SIZE)]),
                theirs.RepetitionPenaltyLogitsProcessor(1.7),
                theirs.NoRepeatNGramLogitsProcessor(3),
                theirs.LogitNormalization(),
            ]
        )
    ]


def _prompt(rng: Random) -> str:
    length = rng.choice([1, 2, 5, 12, 30])
    base = "".join(rng.choice("abcx=1, .()\né€") for _ in range(max(1, length // 2)))
    return (base * 3)[:length]


def _plan(rng: Random) -> dict[str, Any]:
    size = rng.randint(1, 4)
    if rng.random() < 0.5:
        return {"batch": spec("eqspec", {"batch_size": size})}
    options = {"window": size + rng.randint(1, 4), "shortest_first": rng.random() < 0.5}
    return {"batch": spec("exspec", {"batch_size": size, "max_waiting_passes": rng.randint(1, 5), **options})}


def draw(rng: Random, max_length: int, head: str) -> Case:
    """A request for a model of this context."""
    name = rng.choice(DRAFTERS)
    rows = rng.choice([0, 0, 0, 1, 2, 3, 5, 8])
    prompts = [_prompt(rng) for _ in range(max(1, rows))]
    if rows and rng.random() < 0.3:
        prompts = prompts[:1] * rows
    limit = max_length - max(len(prompt.encode()) for prompt in prompts)
    length = min(limit, 40 if rng.random() < 0.2 else rng.choice([1, 2, 3, 5, 8, 17, 30, 30]))
    # Without an end of text its token is one of many; stop strings then are another matter.
    eos = rng.choice([None, None, None, None, [], [0, 3]])
    stop = rng.sample(_STOPS, rng.randint(1, 3)) if rng.random() < 0.4 and eos != [] else []
    call: dict[str, Any] = {"logprobs": rng.random() < 0.5}
    if rng.random() < 0.25:
        call["acceptance"] = "lossless"
    if rng.random() < 0.2:
        call["alternatives"] = rng.choice([1, 5, 20])
    if rows and rng.random() < 0.5:
        call |= _plan(rng)
    return Case(
        name,
        method_options(rng, name, head),
        prompts,
        rows > 0,
        shaping(rng),
        custom(rng),
        max(1, length),
        rng.choice(_SEEDS),
        eos,
        stop,
        rng.random() < 0.5,
        call,
    )
