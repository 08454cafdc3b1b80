"""Random schemas, and random texts of their grammars on a vocabulary of bytes, for ``jsonschema`` to judge."""

from __future__ import annotations

import json
import random
import re
from datetime import datetime
from urllib.parse import urlsplit

import numpy as np
from jsonschema import FormatChecker
from jsonschema.validators import validator_for

from unspool.methods.constraints.grammar import GrammarConstraint, GrammarOptions
from unspool.methods.constraints.grammar.options import byte_vocabulary, strict_json

END = 256
FORMATS = ["date", "time", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "uri", "uuid"]
LABEL = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")
DURATION = re.compile(r"P(?!$)(\d+W|(\d+Y)?(\d+M)?(\d+D)?(T(?=\d)(\d+H)?(\d+M)?(\d+S)?)?)")
URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(?:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*")


def _host(text):
    return len(text) <= 253 and all(LABEL.fullmatch(label) for label in text.split("."))


def _time(text):
    return bool(re.fullmatch(r"\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", text)) and bool(
        datetime.fromisoformat("2001-01-01T" + text.replace("Z", "+00:00"))
    )


def _date(text):
    return bool(re.fullmatch(r"\d{4}-\d\d-\d\d", text)) and bool(datetime.strptime(text, "%Y-%m-%d"))


def _checker():
    """By independent code: the standard library's, or the specification's words."""
    checker = FormatChecker(["ipv4", "ipv6", "uuid"])
    checks = {
        "date": _date,
        "time": _time,
        "date-time": lambda text: text[10] == "T" and _date(text[:10]) and _time(text[11:]),
        "duration": DURATION.fullmatch,
        "email": lambda text: text.count("@") == 1 and text.index("@") <= 64 and _host(text.partition("@")[2]),
        "hostname": _host,
        "uri": lambda text: URI.fullmatch(text) and (urlsplit(text).port or True),
    }
    for name, check in checks.items():
        checker.checks(name, raises=(ValueError, IndexError))(
            lambda value, check=check: not isinstance(value, str) or bool(check(value))
        )
    return checker


CHECKER = _checker()


def constraint(**options):
    return GrammarConstraint(GrammarOptions(**options), byte_vocabulary(), {END})


def takes(grammar, text):
    """Whether a fresh constraint lets a text come and end."""
    path = []
    for byte in text.encode():
        if not grammar.is_allowed(path, byte):
            return False
        path.append(byte)
    return grammar.is_allowed(path, END)


def walk(grammar, seed, limit=300):
    """A random text of the grammar; None where it does not end within ``limit`` bytes."""
    rng, text = random.Random(seed), []
    while len(text) < limit:
        tokens = list(grammar.forced())
        if not tokens:
            allowed = np.flatnonzero(grammar.allowed(())).tolist()
            assert allowed
            if END in allowed and (len(allowed) == 1 or rng.random() < 0.5 + len(text) / limit):
                return bytes(text).decode()
            ways = [token for token in allowed if token != END]
            # Toward the end, and over the few bytes at which JSON differs.
            structure = [token for token in ways if token in b'"}],:']
            letters = [token for token in ways if token in b"abk\\eE.-019"]
            pool = structure if structure and rng.random() < 0.2 + len(text) / limit else ways
            pool = letters if pool is ways and letters and rng.random() < 0.5 else pool
            tokens = [rng.choice(pool)]
        grammar.advance(tokens)
        text += tokens
    return None


def judge(schema, text):
    """None, or why a text is not what the schema asks for."""
    try:
        value = strict_json(text)
    except ValueError as error:
        return f"no strict JSON: {error}"
    kind = validator_for(schema)
    errors = list(kind(schema, format_checker=CHECKER).iter_errors(value))
    return errors[0].message[:200] if errors else None


class Schemas:
    """Makes random schemas."""

    def __init__(self, seed):
        self.rng = random.Random(seed)

    def __call__(self):
        schema = self.any(3)
        if self.rng.random() < 0.3:
            schema = {"type": "object", "properties": {"next": {"$ref": "#"}, "value": schema}, "$defs": {}}
            if self.rng.random() < 0.5:
                schema["required"] = ["value"]
        return schema

    def any(self, depth):
        kinds = [self.integer, self.number, self.text, self.format, self.choice, self.plain]
        if depth:
            kinds += [self.object, self.object, self.object, self.array, self.union, self.both, self.open]
        return self.rng.choice(kinds)(depth - 1)

    def integer(self, _):
        r = self.rng
        schema = {"type": "integer"}
        if r.random() < 0.6:
            edge = r.choice([0, 1, -3, 100, 2**53, 2**53 + 1, 2**60 + 7, 2.5])
            schema |= r.choice([{"minimum": edge}, {"maximum": edge}, {"exclusiveMinimum": edge}, {"maximum": -edge}])
        if r.random() < 0.4:
            schema["multipleOf"] = r.choice([2, 3, 5, 7, 1000, 2.0])
        return schema

    def number(self, _):
        r = self.rng
        schema = {"type": "number"}
        if r.random() < 0.7:
            edge = r.choice([0, 1, 0.1, -0.3, 1e-12, 1e20, 99.99999999999999, 123.456, 2**53 + 1])
            schema |= r.choice(
                [{"exclusiveMinimum": edge}, {"exclusiveMaximum": edge}, {"minimum": edge}, {"maximum": edge}]
            )
        if r.random() < 0.3:
            schema["multipleOf"] = r.choice([0.5, 0.25, 3, 1.5, 0.1])
        return schema

    def text(self, _):
        r = self.rng
        schema = {"type": "string"}
        if r.random() < 0.5:
            schema |= {"minLength": r.randrange(4), "maxLength": r.randrange(4, 9)}
        if r.random() < 0.5:
            schema["pattern"] = r.choice(
                [
                    r"^\w+$",
                    r"\d",
                    r"^[^\s]{2,5}$",
                    r"^a|b$",
                    ".",
                    r"^(?:ab|c.)*$",
                    r"^\D+$",
                    r'^["\\]+$',
                    "[&&]",
                    "(?i)^k",
                ]
            )
        return schema

    def format(self, _):
        return {"type": "string", "format": self.rng.choice(FORMATS)}

    def choice(self, _):
        return self.rng.choice(
            [
                {"enum": ["a", 'q"\\', "é😀", 3, 0.1, None, True, [1, {"k": 2.5}], 1e-7]},
                {"const": {"b": 1, "a": ["\n\x01/"]}},
                {"enum": ["aa", "ab"], "minLength": 1},
            ]
        )

    def plain(self, _):
        return self.rng.choice([{"type": "boolean"}, {"type": "null"}, {"type": ["null", "integer"]}, {}, True])

    def object(self, depth):
        r = self.rng
        names = r.sample(["a", "b", "k", 'q"', "é", "long name", "a\nb"], r.randrange(4))
        schema = {"type": "object", "properties": {name: self.any(depth) for name in names}}
        if names and r.random() < 0.6:
            schema["required"] = r.sample(names, r.randrange(1, len(names) + 1))
        if r.random() < 0.5:
            pattern = r.choice(
                ["^a$", "^(a|b)$", "^[ab]{1,2}$", "^x-", "^[k-m]+$", "^(?:id|x.+)$", "^[0-9]{3}$", "^.*$"]
            )
            schema["patternProperties"] = {pattern: self.any(depth)}
        if r.random() < 0.6:
            schema["additionalProperties"] = r.choice([False, False, True, self.any(depth)])
        if r.random() < 0.3:
            schema["minProperties"] = r.randrange(1, 4)
        if r.random() < 0.1:
            schema["maxProperties"] = r.randrange(3, 5)
        return schema

    def open(self, depth):
        return {"type": "object", "additionalProperties": self.any(depth), "minProperties": self.rng.randrange(4)}

    def array(self, depth):
        schema = {"type": "array", "items": self.any(depth)}
        if self.rng.random() < 0.5:
            schema |= {"minItems": self.rng.randrange(3), "maxItems": self.rng.randrange(3, 5)}
        if self.rng.random() < 0.2:
            schema["prefixItems"] = [self.any(depth)]
        return schema

    def union(self, depth):
        return {"anyOf": [self.any(depth), self.any(depth)]}

    def both(self, depth):
        return {"allOf": [self.object(depth), self.object(depth)]}


def described(schema):
    return json.dumps(schema, ensure_ascii=False)
