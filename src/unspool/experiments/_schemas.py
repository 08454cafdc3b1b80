"""JSON Schemas that use nesting, enumerations, bounds, recursion, unions and patterns."""

from __future__ import annotations

from typing import Any


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

SCHEMAS: dict[str, dict[str, Any]] = {
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
