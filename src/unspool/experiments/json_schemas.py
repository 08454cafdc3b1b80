"""JSON Schemas: is every text valid that ended by itself, where the same prompt without a constraint often gives none?

The prompt shows the schema in both variants. Half of the texts are greedy, half drawn at temperature 1, each with a
seed of its own; ``jsonschema`` judges them. What the length limit cut is counted apart. ``forced`` tokens are those
that the schema leaves no choice for; they are drafted at no cost.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from unspool.decoding.model import Model
from unspool.decoding.results import Result
from unspool.experiments._drafting import by_variant
from unspool.experiments._schemas import SCHEMAS
from unspool.reproduce.experiment import Case, Expect, Experiment, Figure, Row, Summary, Table
from unspool.reproduce.setup import Setup
from unspool.reproduce.statistics import difference, ratio, share

PROMPT = "Answer with made-up JSON data about {name}, and nothing else. It must fit this JSON Schema: {schema}"
CONSTRAINED, FREE = "schema", "prompt alone"
FREE_ROUNDS = 2
"""Rounds of texts that are also decoded without a constraint."""


def cases(setup: Setup) -> list[Case]:
    """A case is a schema in one round, that is with one temperature and seed."""
    names = list(SCHEMAS)

    def measure(name: str, number: int) -> list[Row]:
        model = setup.language_model()
        rows = [_decode(model, name, number, True, setup.pick(160, 24))]
        if number < FREE_ROUNDS:
            rows.append(_decode(model, name, number, False, setup.pick(160, 24)))
        return rows

    keys = [(names[i % len(names)], i // len(names)) for i in range(setup.count)]
    return [Case(f"{name}, round {number}", partial(measure, name, number)) for name, number in keys]


def _decode(model: Model, name: str, number: int, constrained: bool, max_new_tokens: int) -> Row:
    schema = SCHEMAS[name]
    result = model.generate(
        PROMPT.format(name=name, schema=json.dumps(schema)),
        temperature=float(number % 2),
        seed=number,
        max_new_tokens=max_new_tokens,
        **({"json_schema": schema} if constrained else {}),
    )
    return {
        "variant": CONSTRAINED if constrained else FREE,
        "tokens": result.statistics.tokens,
        "passes": result.statistics.passes,
        "forced": result.statistics.by_source.get("forced", 0),
        "ended": result.finish_reason == "stop",
        "valid": _valid(result, schema),
    }


def _valid(result: Result, schema: dict[str, Any]) -> bool:
    try:
        Draft202012Validator(schema).validate(json.loads(result.text))
    except (ValidationError, ValueError):
        return False
    return True


def summarise(rows: Sequence[Row]) -> Summary:
    """Validity of texts that ended, and paired with the texts of the same rounds without a constraint."""
    by = by_variant(rows)
    ours, free = by[CONSTRAINED], by[FREE]
    ended = [row for row in ours if row["ended"]]
    beside = {row["case"]: row for row in ours}
    pairs = [(beside[row["case"]]["valid"], row["valid"]) for row in free]
    figures = {
        "valid of those that ended": Figure(
            sum(row["valid"] for row in ended) / len(ended) if ended else float("nan"), count=len(ended)
        ),
        "ended within the limit": share([row["ended"] for row in ours]),
        "valid, schema less prompt alone": difference([float(a) for a, _ in pairs], [float(b) for _, b in pairs]),
        "forced tokens": ratio([row["forced"] for row in ours], [row["tokens"] for row in ours]),
        "tokens a pass": ratio([row["tokens"] for row in ours], [row["passes"] for row in ours]),
    }
    drawn = [
        (
            variant,
            str(len(found)),
            str(sum(row["ended"] for row in found)),
            str(sum(row["valid"] for row in found)),
            str(sum(row["tokens"] for row in found)),
        )
        for variant, found in by.items()
    ]
    return Summary(figures, [Table("", ("", "texts", "ended", "valid", "tokens"), drawn)])


EXPERIMENT = Experiment(
    methods=("grammar",),
    claim="Under a JSON Schema every text that ends by itself is valid, and what the schema forces is decoded without "
    "passes of its own.",
    control="the same prompts, which show the schema, without a constraint; jsonschema as a judge of its own",
    test="30 schemas of nesting, enumerations, bounds, recursion, unions and patterns; half greedy, half temperature 1",
    cases=cases,
    summarise=summarise,
    expects=[
        Expect("valid of those that ended", at_least=1, cases=100),
        Expect("valid, schema less prompt alone", at_least=0.2, cases=30),
        Expect("forced tokens", at_least=0.2, cases=30),
        Expect("tokens a pass", at_least=1.3, cases=30),
    ],
    model="smollm2-135m",
    count=300,
    minutes=15,
)
