"""The places of schemas in a JSON Schema, and which of the schemas any JSON can satisfy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from unspool.errors import UnspoolError

_ONE = (
    "additionalItems",
    "additionalProperties",
    "contains",
    "contentSchema",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
)
_LISTS = ("allOf", "anyOf", "items", "oneOf", "prefixItems")
_BY_NAME = ("$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties", "properties")
_DRAFTS = ("draft-04/schema", "draft-06/schema", "draft-07/schema", "draft/2019-09/schema", "draft/2020-12/schema")

Place = tuple[Any, Any]
"""The container of a schema (a mapping or a list), and its key there."""


def places(schema: dict[str, Any]) -> Iterator[Place]:
    """The places of the schemas directly below one."""
    for name in _ONE:
        if isinstance(schema.get(name), dict | bool):
            yield schema, name
    for name in _LISTS:
        if isinstance(schema.get(name), list):
            yield from ((schema[name], i) for i, below in enumerate(schema[name]) if isinstance(below, dict | bool))
    for name in _BY_NAME:
        if isinstance(schema.get(name), dict):
            yield from ((schema[name], key) for key, below in schema[name].items() if isinstance(below, dict | bool))


def schemas(root: dict[str, Any]) -> list[dict[str, Any]]:
    """All schemas that are objects, the root first; includes those that only a ``$ref`` names (OpenAPI components)."""
    found: dict[int, dict[str, Any]] = {}
    waiting: list[Any] = [root]
    while waiting:
        schema = waiting.pop()
        if not isinstance(schema, dict) or id(schema) in found:
            continue
        found[id(schema)] = schema
        waiting += [holder[key] for holder, key in places(schema)]
        if isinstance(reference := schema.get("$ref"), str):
            waiting.append(target(root, reference))
    return list(found.values())


def target(root: dict[str, Any], reference: str) -> Any:
    """The target of ``#/a/b``; None if it is not a path of this schema."""
    if reference == "#":
        return root
    if not reference.startswith("#/"):
        return None
    at: Any = root
    for part in reference[2:].split("/"):
        key = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(at, Mapping) and key in at:
            at = at[key]
        elif isinstance(at, list) and key.isdecimal() and int(key) < len(at):
            at = at[int(key)]
        else:
            return None
    return at


def types(schema: Mapping[str, Any]) -> frozenset[str]:
    """The types of JSON that a schema's own ``type`` allows."""
    given = schema.get("type", ["array", "boolean", "integer", "null", "number", "object", "string"])
    return frozenset([given] if isinstance(given, str) else given)


def leave_out_endless(root: dict[str, Any]) -> bool:
    """Put ``false`` where a schema recurses without a base case; returns whether some JSON is left for the root."""
    finite: set[int] = set()
    everything = schemas(root)

    def ends(schema: Any) -> bool:
        return schema is not False and (not isinstance(schema, dict) or id(schema) in finite)

    def finishes(schema: dict[str, Any]) -> bool:
        if isinstance(reference := schema.get("$ref"), str):
            aim = target(root, reference)
            if aim is not None and not ends(aim):
                return False
        if not all(map(ends, schema.get("allOf", ()))):
            return False
        if any(name in schema and not any(map(ends, schema[name])) for name in ("anyOf", "oneOf")):
            return False
        kinds = types(schema)
        if kinds - {"array", "object"}:
            return True
        if "array" in kinds and _items_end(schema, ends):
            return True
        return "object" in kinds and _properties_end(schema, ends)

    size = -1
    while size < (size := len(finite)):
        finite |= {id(schema) for schema in everything if finishes(schema)}
    for schema in everything:
        for holder, key in list(places(schema)):
            if isinstance(holder[key], dict) and id(holder[key]) not in finite:
                holder[key] = False
    return id(root) in finite


def _items_end(schema: dict[str, Any], ends: Any) -> bool:
    items = schema.get("items", True)
    first = schema.get("prefixItems", items if isinstance(items, list) else [])
    rest = schema.get("additionalItems", True) if isinstance(items, list) else items
    least = schema.get("minItems", 0)
    if not isinstance(least, int | float):
        return True
    return all(map(ends, first[: int(least)])) and (least <= len(first) or ends(rest))


def _properties_end(schema: dict[str, Any], ends: Any) -> bool:
    required, named = schema.get("required", ()), schema.get("properties", {})
    if not isinstance(required, list) or not isinstance(named, dict):
        return True
    patterns, rest = schema.get("patternProperties"), schema.get("additionalProperties", True)
    # What a pattern requires of a name was added to ``properties`` before; an unknown name is additional.
    return all(ends(named[name]) if name in named else bool(patterns) or ends(rest) for name in required)


def check_draft(root: dict[str, Any]) -> None:
    """Refuse a schema of a draft that llguidance does not know, and write the draft's name as llguidance does."""
    naming = [below for below in schemas(root) if "$schema" in below]
    drafts = {_canonical(below["$schema"]) for below in naming}
    if len(drafts) > 1:
        raise UnspoolError("the schema mixes drafts; name one $schema at its root")
    for below in naming:
        (below["$schema"],) = drafts


def _canonical(draft: Any) -> str:
    name = str(draft).removeprefix("https://").removeprefix("http://").rstrip("#").removeprefix("json-schema.org/")
    name = _DRAFTS[-1] if name == "schema" else name  # the newest one, which is also the default
    if name not in _DRAFTS:
        raise UnspoolError(f"$schema is {draft!r}, not one of drafts 4 to 2020-12; name one or leave it out")
    return f"http://json-schema.org/{name}#" if name.startswith("draft-") else f"https://json-schema.org/{name}"
