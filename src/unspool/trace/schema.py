"""Validates lines of a trace: by ``trace.schema.json``, and by rules on parallel arrays that no schema can express."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib import resources
from itertools import pairwise
from typing import Any

KINDS = ("start", "prefill", "step", "canvas", "probe", "end")

_TYPES: dict[str, set[type]] = {"integer": {int}, "number": {int, float}, "string": {str}, "null": {type(None)}}


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of one line of a trace."""
    text = resources.files("unspool.trace").joinpath("trace.schema.json").read_text("utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def problem_of(line: Mapping[str, Any], kind: Any) -> str | None:
    """The fault of a trace line in a few words; None if it is valid.

    Args:
        kind: expected kind of line: ``"header"``, or the kind that the event claims.
    """
    if kind not in ("header", *KINDS):
        return f"unknown kind {kind!r} (known: {', '.join(KINDS)})"
    from jsonschema.exceptions import best_match

    error = best_match(_validator(kind).iter_errors(line))
    if error is not None:
        where = error.json_path.removeprefix("$").removeprefix(".")
        message = error.message if len(error.message) <= 120 else f"{error.message[:60]} … {error.message[-60:]}"
        return f"{where}: {message}" if where else message
    if kind == "step":
        return _step_problem(line)
    if kind == "probe" and len(line["labels"]) not in (0, len(line["values"])):
        return f"labels needs one entry for each of the {len(line['values'])} values, or none"
    return _canvas_problem(line) if kind == "canvas" else None


def _step_problem(step: Mapping[str, Any]) -> str | None:
    nodes, parents, accepted, emitted = len(step["tokens"]), step["parents"], step["accepted"], len(step["emitted"])
    if len(parents) != nodes or len(step["sources"]) != nodes:
        return f"parents and sources need one entry for each of the {nodes} tokens of the tree"
    if parents[0] != -1 or any(not 0 <= parent < node for node, parent in enumerate(parents) if node):
        return "parents: -1 for the root, an earlier node for every other one"
    if accepted[0] != 0 or any(node >= nodes or parents[node] != before for before, node in pairwise(accepted)):
        return "accepted is not a path that starts at the root"
    if emitted > len(accepted):
        return f"{emitted} tokens were emitted, but only {len(accepted)} nodes accepted"
    for name in ("margins", "logprobs", "alternatives", "ranks", "pieces"):
        if step[name] is not None and len(step[name]) != emitted:
            return f"{name} needs one entry for each of the {emitted} emitted tokens"
    return None


def _canvas_problem(canvas: Mapping[str, Any]) -> str | None:
    committed, slots = canvas["committed"], canvas["slots"]
    if len(canvas["confidence"]) != len(committed):
        return f"confidence needs one entry for each of the {len(committed)} committed slots"
    if any(slot >= len(slots) or slots[slot] is None for slot in committed):
        return "committed names a slot without a token"
    return None


@cache
def _validator(kind: str) -> Any:
    """A validator for one kind of line. Its messages name the field; those of ``oneOf`` would not."""
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend

    # A trace contains some 10^5 numbers and texts, at 10 µs each in the library. Arrays and objects of plain values are
    # therefore checked in one go, and walked by the library only to describe a fault.
    walk = Draft202012Validator.VALIDATORS
    plain: dict[str, Any] = {
        "items": lambda value: value if isinstance(value, list) else (),
        "additionalProperties": lambda value: value.values() if isinstance(value, dict) else (),
        "propertyNames": lambda value: value if isinstance(value, dict) else (),
    }

    def keyword(name: str) -> Callable[..., Iterator[Any]]:
        def check(validator: Any, rule: Any, value: Any, parent: Mapping[str, Any]) -> Iterator[Any]:
            whole = "properties" not in parent and "prefixItems" not in parent
            if not (whole and _all_fit(rule, list(plain[name](value)))):
                yield from walk[name](validator, rule, value, parent)

        return check

    return extend(Draft202012Validator, {name: keyword(name) for name in plain})(
        {"$ref": f"#/$defs/{kind}", "$defs": schema()["$defs"]}
    )


def _all_fit(rule: Any, values: list[Any]) -> bool:
    """Whether ``rule`` is a schema of numbers, texts or tuples of them, and all values fit; False if undecided."""
    if isinstance(rule, dict) and "prefixItems" in rule and rule.get("items") is False:  # tuples
        places = rule["prefixItems"]
        whole = all(isinstance(value, list) and len(value) == len(places) for value in values)
        return whole and all(_all_fit(place, [value[i] for value in values]) for i, place in enumerate(places))
    if not isinstance(rule, dict) or not rule.keys() <= {"type", "minimum", "maximum", "minLength", "pattern"}:
        return False
    kinds = rule.get("type", "string")
    if not set(map(type, values)) <= set().union(
        *(_TYPES[kind] for kind in ([kinds] if type(kinds) is str else kinds))
    ):
        return False
    numbers = [value for value in values if isinstance(value, int | float)]
    if numbers and not rule.get("minimum", -math.inf) <= min(numbers) <= max(numbers) <= rule.get("maximum", math.inf):
        return False
    texts = [value for value in values if isinstance(value, str)]
    search = re.compile(rule.get("pattern", "")).search
    return all(map(search, texts)) and min(map(len, texts), default=math.inf) >= rule.get("minLength", 0)
