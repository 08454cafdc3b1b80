"""Whether texts fit a grammar: fixed tasks, and judges that share no code with the constraint.

JSON Schemas are judged by ``jsonschema``, regular expressions by Python's ``re``, a grammar of sums by Python's own
parser.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unspool.decoding.model import Model

JUDGE = "jsonschema, re, ast"


@dataclass(frozen=True)
class Task:
    """A request, the grammar that the answer must fit, and the judge."""

    about: str
    grammar: Mapping[str, Any]
    fits: Callable[[str], bool]

    @property
    def prompt(self) -> str:
        return f"Answer with made-up data and nothing else. It is about: {self.about}."

    def verdict(self, text: str, finish_reason: str) -> bool | None:
        """Whether a text is valid; None if it was cut by the length limit."""
        return self.fits(text) if finish_reason == "stop" else None


def _schema(about: str, schema: Mapping[str, Any]) -> Task:
    from jsonschema import Draft202012Validator

    def fits(text: str) -> bool:
        try:
            return bool(Draft202012Validator(schema).is_valid(json.loads(text)))
        except json.JSONDecodeError:
            return False

    return Task(about, {"json_schema": schema}, fits)


def _regex(about: str, regex: str) -> Task:
    return Task(about, {"regex": regex}, lambda text: re.fullmatch(regex, text) is not None)


def _is_sum(text: str) -> bool:
    try:
        nodes = ast.walk(ast.parse(text, mode="eval"))
    except SyntaxError:
        return False
    return all(isinstance(n, ast.Expression | ast.BinOp | ast.Add | ast.Sub | ast.Constant) for n in nodes)


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


def tasks() -> list[Task]:
    """Nesting, enumerations, bounds, recursion, unions, patterns; a regular expression, choices, a grammar."""
    count: dict[str, Any] = {"type": "integer", "minimum": 0, "maximum": 99}
    word = {"type": "string", "maxLength": 16}
    tree = {**_object(value=count), "properties": {"value": count, "left": {"$ref": "#/$defs/tree"}}}
    sums = 'start: term ((" + " | " - ") term)*\nterm: NUMBER | "(" start ")"\nNUMBER: /[1-9][0-9]?/'
    colours = ("red", "dark red", "green")
    return [
        _schema("a person", _object(name=word, home=_object(street=word, number=count))),
        _schema("a shirt", _object(colour={"enum": ["red", "green"]}, price={"type": "number", "minimum": 0.5})),
        _schema("a part", _object(code={"type": "string", "pattern": "^[A-Z]{3}-[0-9]{4}$"})),
        _schema("a tree", {"$ref": "#/$defs/tree", "$defs": {"tree": tree}}),
        _schema("a shape", {"anyOf": [_object(radius=count), _object(width=count, height=count)]}),
        _schema("scores", {"type": "array", "items": count, "minItems": 2, "maxItems": 4}),
        _regex("a time of the day", r"([01][0-9]|2[0-3]):[0-5][0-9]"),
        Task("a colour", {"choices": colours}, lambda text: text in colours),
        Task("a sum of numbers", {"grammar": sums}, _is_sum),
    ]


def outcomes(model: Model, options: Mapping[str, Any]) -> Iterator[tuple[bool | None, int]]:
    """For each task, whether the text is valid (None if it was cut) and its number of tokens."""
    for task in tasks():
        result = model.generate(task.prompt, memories={}, **task.grammar, **options)
        yield task.verdict(result.text, result.finish_reason), len(result.token_ids)
