"""Prepares a JSON Schema for llguidance: the same texts or fewer, or one error that says what is not supported.

llguidance reads numbers as floats, has its own formats, lets a schema turn its refusals off, and reaches a dead end if
a pattern of names allows only names that are already properties. What it would read differently is rewritten here
(bounds rounded inwards to numbers that are exact as floats, formats and patterns as plain patterns, names that a
pattern lists as properties); what cannot be rewritten is refused by name. ``jsonschema``, which reads numbers as Python
does, judges the texts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unspool.errors import UnspoolError
from unspool.methods.constraints.grammar.pattern_reader import LONGEST
from unspool.methods.constraints.grammar.patterns import found, found_names, names, python_of, runs_on
from unspool.methods.constraints.grammar.schema_formats import ANYTHING, FORMATS
from unspool.methods.constraints.grammar.schema_numbers import exact_value, numbers
from unspool.methods.constraints.grammar.schema_walk import check_draft, leave_out_endless, schemas, types

_LENGTHS = 2**31
"""Longer than any text; llguidance cannot read much larger numbers."""
_NAMES = 256
"""Most names that a pattern may list to be treated as properties."""
_DRAFT_3 = {"divisibleBy": "multipleOf", "disallow": "not", "extends": "allOf"}


@dataclass(frozen=True)
class Prepared:
    """A schema for llguidance, and what ``JsonGuard`` must know about it.

    Attributes:
        schema: the same texts or fewer.
        scarce: whether the names that patterns allow may run out.
        names: of properties that contain a control character, which has two spellings.
    """

    schema: dict[str, Any]
    scarce: bool
    names: frozenset[str]


def prepared(schema: Mapping[str, Any]) -> Prepared:
    """Prepare a schema.

    Raises:
        UnspoolError: if it requires what is not supported.
    """
    try:
        root = json.loads(json.dumps(schema, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise UnspoolError(f"the JSON Schema is not JSON: {error}") from error
    check_draft(root)
    scarce = False
    for below in schemas(root):
        try:
            scarce |= _prepare(below)
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            raise UnspoolError(f"the JSON Schema has a keyword with a wrong value: {error}") from error
    if not leave_out_endless(root):
        raise UnspoolError(
            "no JSON fits the schema: it requires what it forbids, or recurses without end; give it a base case"
        )
    everything = schemas(root)
    spelled = {name for below in everything for name in below.get("properties", {}) if set(name) & set("\b\f\n\r\t")}
    return Prepared(root, scarce, frozenset(spelled))


def _prepare(schema: dict[str, Any]) -> bool:
    """Prepares one schema; returns whether names of the object may run out, see ``Prepared``."""
    for name, instead in _DRAFT_3.items():
        if name in schema:
            raise UnspoolError(f"{name} is a keyword of draft 3, which is no longer supported; write {instead}")
    if isinstance(schema.get("required"), bool):
        raise UnspoolError("required is a list of names since draft 4; write it next to properties")
    if "x-guidance" in schema:
        raise UnspoolError("x-guidance would change how the schema is read; leave it out")
    if schema.get("uniqueItems") is False:
        del schema["uniqueItems"]
    _lengths(schema)
    _texts(schema)
    numbers(schema)
    if "const" in schema:
        schema["const"] = exact_value(schema["const"])
    if isinstance(schema.get("enum"), list):
        schema["enum"] = [exact_value(value) for value in schema["enum"]]
    return "object" in types(schema) and _names(schema)


def _lengths(schema: dict[str, Any]) -> None:
    for kind in ("Length", "Items", "Properties"):
        least, most = schema.get(f"min{kind}"), schema.get(f"max{kind}")
        if least is not None and least > LONGEST:
            raise UnspoolError(f"min{kind} is {least:,}, and the limit is {LONGEST:,}; lower it")
        if most is not None and most >= _LENGTHS:
            del schema[f"max{kind}"]


def _texts(schema: dict[str, Any]) -> None:
    patterns = []
    kind = schema.pop("format", None)
    if kind is not None and "string" in types(schema) and kind not in ANYTHING:
        if kind not in FORMATS:
            known = ", ".join(FORMATS)
            raise UnspoolError(f"format {kind!r} cannot be enforced (only {known}); leave it out or write a pattern")
        patterns.append(f"^(?:{FORMATS[kind]})$")
    if "pattern" in schema:
        patterns.append(found(schema.pop("pattern")))
    if patterns:
        schema["pattern"] = patterns[0]
        schema["allOf"] = [*schema.get("allOf", ()), *({"pattern": pattern} for pattern in patterns[1:])]
        if not schema["allOf"]:
            del schema["allOf"]


def _names(schema: dict[str, Any]) -> bool:
    """Turns patterns that list their names into properties; returns whether the names of others may run out."""
    patterns: dict[str, Any] = schema.pop("patternProperties", {})
    properties: dict[str, Any] = schema.get("properties", {})
    is_closed = schema.get("additionalProperties") is False
    counts = schema.get("minProperties", 0) > 1 or "maxProperties" in schema
    kept: dict[str, Any] = {}
    named: set[str] = set()
    extra = 0
    listed = {pattern: names(pattern, _NAMES + len(properties)) for pattern in patterns}
    for pattern, below in list(patterns.items()):
        found_in = listed[pattern]
        # llguidance counts properties only if all named ones are required.
        if found_in is not None and not (counts and found_in.isdisjoint(properties)):
            named |= found_in
            for name in sorted(found_in):
                properties[name] = {"allOf": [properties[name], below]} if name in properties else below
            del patterns[pattern]
    for pattern, below in patterns.items():
        for name, known in list(properties.items()):
            # Names that Python matches and a narrower pattern does not.
            if _finds(pattern, name):
                properties[name] = {"allOf": [known, below]}
        # If no other name is allowed, a pattern may be narrower than Python's; else non-matching names are additional.
        written = found(pattern) if is_closed else found_names(pattern)
        kept[written] = {"allOf": [kept[written], below]} if written in kept else below
        extra += len(listed[pattern] or range(_NAMES))
    if named and (kept or not is_closed):
        for name in sorted(named):
            properties.setdefault(name + "\n", False)  # in Python, `$` also matches before this line end
    if properties:
        schema["properties"] = properties
    if kept:
        schema["patternProperties"] = kept
    most = sum(below is not False for below in properties.values())
    least = schema.get("minProperties", 0)
    if is_closed and least > most + extra:
        raise UnspoolError(f"minProperties is {least}, but fewer names are possible; lower it or allow more names")
    # A name that one pattern forbids may still be the beginning of another.
    return any(below is False or (is_closed and not runs_on(pattern)) for pattern, below in patterns.items())


def _finds(pattern: str, name: str) -> bool:
    try:
        return re.search(python_of(pattern), name) is not None
    except re.error:  # a property of Unicode, which llguidance knows
        return False
