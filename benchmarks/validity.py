"""Is every text under a JSON Schema valid? And what does the schema cost, and what do forced tokens give back?

    python benchmarks/validity.py -m smollm2-135m --outputs 2000 --markdown validity.md

Schemas: those below, which use what JSON Schema has of nesting, enumerations, bounds, recursion, unions and patterns,
and the parameters of tools of the Berkeley Function Calling Leaderboard (package ``bfcl-eval``, with their questions as
prompts). Half of the texts are greedy, half drawn at temperature 1, each with a seed of its own. ``jsonschema`` judges
every text that ended by itself; what the length limit cut is counted apart.

- grammar share: of the time of all passes, what the constraint's own calls took.
- plain: the same prompts without a schema and without drafts, cut where the text under the schema ended, one after the
  other with the texts under the schema: only that many of them, greedy ones.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import common
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from rich.progress import track

import unspool
from unspool.bench.about import about
from unspool.decoding.results import Result
from unspool.methods.constraints.grammar import GrammarConstraint


def closed(**properties: Any) -> dict[str, Any]:
    """An object with these properties and no others; a name that ends in an underscore is optional."""
    return {
        "type": "object",
        "properties": {name.rstrip("_"): value for name, value in properties.items()},
        "required": [name for name in properties if not name.endswith("_")],
        "additionalProperties": False,
    }


WORD, COUNT = {"type": "string", "maxLength": 20}, {"type": "integer", "minimum": 0, "maximum": 99}
TREE = closed(value=COUNT, left_={"$ref": "#/$defs/tree"}, right_={"$ref": "#/$defs/tree"})
LIST = {"oneOf": [{"type": "null"}, closed(head=COUNT, tail={"$ref": "#/$defs/list"})]}

OWN: dict[str, dict[str, Any]] = {
    "person": closed(name=WORD, age={"type": "integer", "minimum": 0, "maximum": 120}),
    "optional": closed(name=WORD, nick_=WORD, born_=COUNT),
    "nested": closed(user=closed(name=WORD, home=closed(street=WORD, number=COUNT, city=WORD))),
    "deep": closed(a=closed(b=closed(c=closed(d=closed(e={"type": "boolean"}))))),
    "enumeration": closed(colour={"enum": ["red", "green", "blue"]}, size={"enum": ["S", "M", "L", "XL"]}),
    "mixed enumeration": closed(value={"enum": [1, "one", None, True, 1.5]}),
    "constant": closed(kind={"const": "point"}, x=COUNT, y=COUNT),
    "bounds": closed(
        low={"type": "integer", "minimum": -5, "maximum": 5}, high={"type": "integer", "minimum": 1000, "maximum": 1023}
    ),
    "open bounds": closed(p={"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}),
    "numbers": closed(
        x={"type": "number", "minimum": -1.5, "maximum": 2.25}, y={"type": "number", "minimum": 0, "maximum": 1}
    ),
    "multiples": closed(cents={"type": "integer", "multipleOf": 5, "minimum": 0, "maximum": 500}),
    "words": {"type": "array", "items": WORD, "minItems": 2, "maxItems": 4},
    "exact list": {"type": "array", "items": COUNT, "minItems": 3, "maxItems": 3},
    "tuple": {"type": "array", "prefixItems": [WORD, COUNT, {"type": "boolean"}], "items": False, "minItems": 3},
    "objects": {"type": "array", "items": closed(id=COUNT, label=WORD), "minItems": 1, "maxItems": 3},
    "union": {"anyOf": [closed(circle=closed(radius=COUNT)), closed(square=closed(side=COUNT))]},
    "scalar union": {"anyOf": [{"type": "string", "maxLength": 8}, COUNT, {"type": "null"}]},
    "types": closed(value={"type": ["integer", "null"], "minimum": 0, "maximum": 9}),
    "one of": {"oneOf": [closed(kind={"const": "a"}, a=COUNT), closed(kind={"const": "b"}, b=WORD)]},
    "all of": {"allOf": [{"type": "integer", "minimum": 10}, {"type": "integer", "maximum": 20}]},
    "tree": {"$ref": "#/$defs/tree", "$defs": {"tree": TREE}},
    "linked list": {"$ref": "#/$defs/list", "$defs": {"list": LIST}},
    "pattern": closed(code={"type": "string", "pattern": "^[A-Z]{3}-[0-9]{4}$"}),
    "patterns": closed(
        hex={"type": "string", "pattern": "^#[0-9a-f]{6}$"},
        time={"type": "string", "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]$"},
    ),
    "lengths": closed(tag={"type": "string", "minLength": 3, "maxLength": 6}),
    "date": closed(day={"type": "string", "format": "date"}),
    "e-mail": closed(mail={"type": "string", "format": "email", "maxLength": 40}),
    "map": {"type": "object", "additionalProperties": COUNT, "maxProperties": 3},
    "references": {**closed(a={"$ref": "#/$defs/word"}, b={"$ref": "#/$defs/word"}), "$defs": {"word": WORD}},
    "booleans": closed(a={"type": "boolean"}, b={"type": "boolean"}, c={"type": "boolean"}),
}
_PROMPT = "Answer with made-up JSON data. It is about: "
_KINDS = {"dict": "object", "float": "number", "tuple": "array"}


def bfcl(count: int) -> list[tuple[str, str, dict[str, Any]]]:
    """Name, question and schema of the first tools whose schema the grammar takes."""
    file = files("bfcl_eval") / "data" / "BFCL_v4_simple_python.json"
    found = []
    for line in file.read_text("utf-8").splitlines()[:count]:
        row = json.loads(line)
        schema = {**_translated(row["function"][0]["parameters"]), "additionalProperties": False}
        found.append((row["function"][0]["name"], row["question"][0][0]["content"], schema))
    return found


def _translated(node: Any) -> Any:
    """BFCL names types as Python does, and some of its keywords are prose."""
    if isinstance(node, list):
        return [_translated(item) for item in node]
    if not isinstance(node, dict):
        return node
    kept = {key: _translated(value) for key, value in node.items() if key not in ("description", "default", "optional")}
    if kept.get("type") == "any":
        del kept["type"]
    elif isinstance(kept.get("type"), str):
        kept["type"] = _KINDS.get(kept["type"], kept["type"])
    return kept


@contextmanager
def timed(spent: list[float]) -> Iterator[None]:
    """Adds the seconds of every outermost call of a grammar's methods to ``spent``."""
    depth, kept = 0, {}

    def clocked(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            nonlocal depth
            depth += 1
            start = time.perf_counter()
            try:
                return call(*args)
            finally:
                depth -= 1
                if not depth:
                    spent.append(time.perf_counter() - start)

        return run

    for name in ("allowed", "permits", "forced", "advance"):
        kept[name] = getattr(GrammarConstraint, name)
        setattr(GrammarConstraint, name, clocked(kept[name]))
    try:
        yield
    finally:
        for name, call in kept.items():
            setattr(GrammarConstraint, name, call)


@dataclass
class Sums:
    """Of many texts."""

    seconds: float = 0.0
    tokens: int = 0
    passes: int = 0
    forced: int = 0

    def add(self, result: Result, start: float) -> None:
        self.seconds += time.perf_counter() - start
        self.tokens += result.statistics.tokens
        self.passes += result.statistics.passes
        self.forced += result.statistics.by_source.get("forced", 0)

    @property
    def speed(self) -> float | None:
        return self.tokens / self.seconds if self.seconds else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", default="smollm2-135m")
    parser.add_argument("--method", default="auto")
    parser.add_argument("--outputs", type=int, default=2000)
    parser.add_argument("--plain", type=int, default=50, help="texts that are also decoded without a schema")
    parser.add_argument("--max-new-tokens", type=int, default=160)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    common.check_outputs(args.markdown, args.json)
    model = unspool.load(args.model)
    made_on = about()
    cases = [(name, _PROMPT + name, schema) for name, schema in OWN.items()] + bfcl(20)
    model.generate(cases[0][1], json_schema=cases[0][2], method=args.method, max_new_tokens=4)  # reads the vocabulary
    counts: Counter[str] = Counter()
    broken, spent = [], list[float]()
    every, beside, plain = Sums(), Sums(), Sums()
    for number in track(range(args.outputs), "texts"):
        name, prompt, schema = cases[number % len(cases)]
        round_ = number // len(cases)
        options = {"temperature": float(round_ % 2), "seed": round_, "max_new_tokens": args.max_new_tokens}
        start = time.perf_counter()
        with timed(spent):
            result = model.generate(prompt, json_schema=schema, method=args.method, **options)
        every.add(result, start)
        if number < args.plain:
            beside.add(result, start)
            start = time.perf_counter()
            plain.add(model.generate(prompt, method="plain", max_new_tokens=len(result.token_ids)), start)
        if result.finish_reason != "stop":
            counts[f"cut at temperature {options['temperature']:g}"] += 1
            continue
        try:
            Draft202012Validator(schema).validate(json.loads(result.text))
            counts["valid"] += 1
        except (ValidationError, json.JSONDecodeError) as error:
            counts["invalid"] += 1
            broken.append({"schema": name, "text": result.text, "error": str(error).splitlines()[0]})
    rows = [
        ["texts", args.outputs],
        ["schemas", len(cases)],
        *([key, count] for key, count in counts.items()),
        ["tokens", every.tokens],
        ["tokens a pass", common.number(every.tokens / every.passes)],
        ["forced, % of tokens", common.number(100 * every.forced / every.tokens, 1)],
        ["grammar share, % of the time", common.number(100 * sum(spent) / every.seconds, 1)],
        ["grammar, ms a pass", common.number(1000 * sum(spent) / every.passes)],
        [f"tokens/s of the first {args.plain} texts", common.number(beside.speed, 1)],
        ["tokens/s of plain decoding without a schema", common.number(plain.speed, 1)],
    ]
    markdown = (
        f"# JSON Schemas: {model.name}, {args.outputs} texts of at most {args.max_new_tokens} tokens\n\n"
        + common.table(["", args.method], rows)
        + "\n\n"
        + common.describe(made_on)
    )
    results = {
        "about": made_on,
        "model": model.name,
        "settings": model.language_model.settings,
        "method": args.method,
        "rows": {str(name): value for name, value in rows},
        "broken": broken,
    }
    common.publish(markdown, results, args.markdown, args.json)


if __name__ == "__main__":
    main()
