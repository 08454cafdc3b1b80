"""Whether methods that promise valid output give it: fixed tasks, and a judge that shares no code with the method.

``grammar`` and samplers: JSON Schemas are judged by ``jsonschema``, regular expressions by Python's ``re``, a grammar
of sums by Python's own parser. ``monitor``: the identifier behind a dot is a member of the class, as its file's syntax
tree says. ``extract``: the answer stands in the passage, and plain passes of one node give its probability.
Output that the length limit cut is counted apart: nothing is promised of it.
"""

from __future__ import annotations

import ast
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unspool.decoding.model import Model
from unspool.engine.method import SAMPLER
from unspool.engine.trace import FinishReason
from unspool.methods import Row
from unspool.proof.passes import one_by_one
from unspool.proof.prompts import TEXT
from unspool.proof.result import MethodProof

Progress = Callable[[int, int], None]
Outcome = tuple[bool | None, int]
"""Whether an output is valid, None if it was cut; and its tokens."""

BESIDE = "suffix"
"""Drafts beside the constraints, whose masks must hold for drafted tokens too."""

SAMPLES = 2
"""Of each grammar."""

_ATTEMPTS = 10
"""For a sample."""

QUESTIONS = ("When was the lighthouse built?", "What turns the lens?", "What does the library lend out?")


@dataclass(frozen=True)
class Task:
    """What is asked for, the grammar it must fit, and who judges that."""

    about: str
    grammar: Mapping[str, Any]
    fits: Callable[[str], bool]

    @property
    def prompt(self) -> str:
        return f"Answer with made-up data and nothing else. It is about: {self.about}."


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


CLASSES = {
    "Lantern": ("weigh_brass", "light_wick", "oil_left"),
    "Ledger": ("strike_line", "total_of_page", "carry_forward"),
    "Orchard": ("count_ripe", "prune_row", "yield_last_year"),
    "Turbine": ("spin_down", "blade_count", "read_gauge"),
}


def check(
    method: Row,
    model: Model,
    *,
    temperature: float,
    max_new_tokens: int,
    seed: int,
    allowed: float,
    progress: Progress,
) -> MethodProof:
    """The row of one method.

    Args:
        allowed: how far a log-probability may be from that of plain passes.
    """
    options = {"temperature": temperature, "max_new_tokens": max_new_tokens, "method": BESIDE}
    if method.kind is SAMPLER:
        outcomes, judge = _samples(model, {**options, "sampler": method.name, "seed": seed}), _JUDGES
    elif method.name == "grammar":
        outcomes, judge = _grammar(model, {**options, "seed": seed}), _JUDGES
    elif method.name == "monitor":
        outcomes, judge = _monitor(model, {**options, "seed": seed}), "the syntax tree of the package"
    else:
        outcomes, judge = _extract(model, allowed), "plain passes of one node"
    found: list[Outcome] = []
    for outcome in outcomes:
        progress(len(found), len(found) + 1)
        found.append(outcome)
    progress(len(found), len(found))
    verdicts = [verdict for verdict, _ in found]
    return MethodProof(
        method.name,
        method.guarantee,
        "validity",
        temperature,
        len(found),
        0,
        sum(tokens for _, tokens in found),
        0,
        verdicts.count(False),
        details={"valid": verdicts.count(True), "cut": verdicts.count(None), "judge": judge},
    )


_JUDGES = "jsonschema, re, ast"


def _verdict(task: Task, text: str, reason: FinishReason) -> bool | None:
    return task.fits(text) if reason == "stop" else None


def _grammar(model: Model, options: Mapping[str, Any]) -> Iterator[Outcome]:
    for task in tasks():
        result = model.generate(task.prompt, memories={}, **task.grammar, **options)
        yield _verdict(task, result.text, result.finish_reason), len(result.token_ids)


def _samples(model: Model, options: Mapping[str, Any]) -> Iterator[Outcome]:
    for task in tasks():
        samples = model.sample(task.prompt, SAMPLES, max_attempts=_ATTEMPTS * SAMPLES, **task.grammar, **options)
        for result in samples.results:
            yield _verdict(task, result.text, result.finish_reason), len(result.token_ids)
        for _ in range(samples.cut):
            yield None, 0


def _monitor(model: Model, options: Mapping[str, Any]) -> Iterator[Outcome]:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "workshop.py")
        file.write_text("\n\n".join(map(_class_of, CLASSES)), "utf-8")
        for cls in ast.parse(file.read_text("utf-8")).body:
            assert isinstance(cls, ast.ClassDef)
            members = {node.name for node in cls.body if isinstance(node, ast.FunctionDef)}
            thing = cls.name.lower()
            code = f"from workshop import {cls.name}\n\n{thing} = {cls.name}()\n{thing}."
            result = model.generate(
                code, chat=False, constraint="monitor", constraint_options={"project": directory}, **options
            )
            (name,) = re.findall(r"^\w*", result.text)
            ended = result.finish_reason == "stop" or name != result.text
            yield (name in members or hasattr(object, name)) if ended else None, len(result.token_ids)


def _class_of(name: str) -> str:
    return f"class {name}:\n" + "\n".join(f"    def {member}(self):\n        pass\n" for member in CLASSES[name])


def _extract(model: Model, allowed: float) -> Iterator[Outcome]:
    from unspool.decoding.extract import extract, line_ends

    ends = sorted(model.eos_token_ids | line_ends(model.tokenizer))
    for question in QUESTIONS:
        found = extract(model, question, TEXT)
        span = found.spans[0]
        text = [*span.token_ids, ends[0]]
        plain: list[float] = []
        for logits, token in zip(one_by_one(model.language_model, found.prompt_token_ids, text), text, strict=True):
            row = logits.astype(np.float64)
            here = row[ends] if len(plain) == len(span.token_ids) else row[[token]]
            plain.append(float(np.logaddexp.reduce(here) - np.logaddexp.reduce(row)))
        stands = " ".join(TEXT[span.start : span.end].split()) == model.tokenizer.decode(span.token_ids).strip()
        yield stands and bool(np.allclose(plain, span.logprobs, rtol=0, atol=allowed)), len(span.token_ids)
