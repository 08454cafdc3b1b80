"""A JSON Schema made ready for llguidance: the same texts or fewer, or one error that says what cannot be met.

llguidance reads numbers as floats, knows formats of its own, lets a schema switch its refusals off and runs into a dead
end where a pattern of names holds none but those that are properties already. What it would read differently is written
in other words here (bounds rounded inwards to numbers that floats hold, formats and patterns as plain patterns, names
that a pattern lists as properties); what cannot be written so is refused by name. Texts are judged by ``jsonschema``,
which reads numbers as Python does.
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
"""No text reaches this length; llguidance cannot read much larger ones."""
_NAMES = 256
"""Names that a pattern may list to be taken as properties."""
_DRAFT_3 = {"divisibleBy": "multipleOf", "disallow": "not", "extends": "allOf"}


@dataclass(frozen=True)
class Prepared:
    """A schema for llguidance, and what ``JsonGuard`` must know of it.

    Attributes:
        schema: the same texts or fewer.
        scarce: whether names that patterns allow may run out.
        names: of properties that hold a control character, which can be spelled in two ways.
    """

    schema: dict[str, Any]
    scarce: bool
    names: frozenset[str]


def prepared(schema: Mapping[str, Any]) -> Prepared:
    """Make a schema ready.

    Raises:
        UnspoolError: if it asks for what cannot be kept.
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
            "no JSON fits the schema: it requires what it forbids, or asks for itself without end; give it a way out"
        )
    everything = schemas(root)
    spelled = {name for below in everything for name in below.get("properties", {}) if set(name) & set("\b\f\n\r\t")}
    return Prepared(root, scarce, frozenset(spelled))


def _prepare(schema: dict[str, Any]) -> bool:
    """Whether names of the object may run out, see ``Prepared``."""
    for name, instead in _DRAFT_3.items():
        if name in schema:
            raise UnspoolError(f"{name} is a keyword of draft 3, which nothing reads any more; write {instead}")
    if isinstance(schema.get("required"), bool):
        raise UnspoolError("required is a list of names since draft 4; write it beside properties")
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
            raise UnspoolError(f"min{kind} is {least:,}, and {LONGEST:,} is the most that can be asked for; lower it")
        if most is not None and most >= _LENGTHS:
            del schema[f"max{kind}"]


def _texts(schema: dict[str, Any]) -> None:
    patterns = []
    kind = schema.pop("format", None)
    if kind is not None and "string" in types(schema) and kind not in ANYTHING:
        if kind not in FORMATS:
            known = ", ".join(FORMATS)
            raise UnspoolError(f"format {kind!r} cannot be kept (only {known}); leave it out or write a pattern")
        patterns.append(f"^(?:{FORMATS[kind]})$")
    if "pattern" in schema:
        patterns.append(found(schema.pop("pattern")))
    if patterns:
        schema["pattern"] = patterns[0]
        schema["allOf"] = [*schema.get("allOf", ()), *({"pattern": pattern} for pattern in patterns[1:])]
        if not schema["allOf"]:
            del schema["allOf"]


def _names(schema: dict[str, Any]) -> bool:
    """Patterns of names: those that list them become properties. Whether names of others may run out."""
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
        # llguidance counts properties only where all that have a name are required.
        if found_in is not None and not (counts and found_in.isdisjoint(properties)):
            named |= found_in
            for name in sorted(found_in):
                properties[name] = {"allOf": [properties[name], below]} if name in properties else below
            del patterns[pattern]
    for pattern, below in patterns.items():
        for name, known in list(properties.items()):
            # Names that Python finds and a narrower pattern does not.
            if _finds(pattern, name):
                properties[name] = {"allOf": [known, below]}
        # Where no other name may come, a pattern may be narrower than Python's; else what is none of it is another.
        written = found(pattern) if is_closed else found_names(pattern)
        kept[written] = {"allOf": [kept[written], below]} if written in kept else below
        extra += len(listed[pattern] or range(_NAMES))
    if named and (kept or not is_closed):
        for name in sorted(named):
            properties.setdefault(name + "\n", False)  # to Python, `$` stands before this line end
    if properties:
        schema["properties"] = properties
    if kept:
        schema["patternProperties"] = kept
    most = sum(below is not False for below in properties.values())
    least = schema.get("minProperties", 0)
    if is_closed and least > most + extra:
        raise UnspoolError(f"minProperties is {least}, and there are fewer names; lower it or allow more names")
    # Of a name that one pattern forbids, another may still be the beginning.
    return any(below is False or (is_closed and not runs_on(pattern)) for pattern, below in patterns.items())


def _finds(pattern: str, name: str) -> bool:
    try:
        return re.search(python_of(pattern), name) is not None
    except re.error:  # a property of Unicode, which llguidance knows
        return False
