"""Texts that a grammar of JSON takes, against ``jsonschema`` with a format checker and strict JSON."""

from __future__ import annotations

import json
from datetime import date

import pytest

from tests.methods.constraints.walks import END, FORMATS, Schemas, constraint, described, judge, takes, walk
from unspool.errors import UnspoolError
from unspool.methods.constraints.grammar import DeadEndError, GrammarConstraint, GrammarOptions
from unspool.methods.constraints.grammar.options import byte_vocabulary, strict_json

INTEGER = {"type": "integer"}


def walked(seeds, texts):
    """How many schemas were taken, and how many texts of them ended; every one of them is valid."""
    taken = ended = 0
    for seed in seeds:
        schema = Schemas(seed)()
        options = GrammarOptions(json_schema=schema)
        try:
            options.matcher(byte_vocabulary())
        except UnspoolError:
            continue
        taken += 1
        for text_seed in range(texts):
            try:
                text = walk(GrammarConstraint(options, byte_vocabulary(), {END}), text_seed)
            except DeadEndError as error:
                pytest.fail(f"schema {seed}, text {text_seed}: {error}\n{described(schema)}")
            if text is not None:
                ended += 1
                assert judge(schema, text) is None, (seed, text_seed, text, described(schema))
    return taken, ended


def test_random_texts_of_random_schemas_are_valid():
    taken, ended = walked(range(140), 2)
    assert taken >= 100 and ended >= 150


@pytest.mark.nightly
def test_many_random_texts_of_many_random_schemas_are_valid():
    taken, ended = walked(range(1000, 3000), 20)
    assert taken >= 1400 and ended >= 20_000


@pytest.mark.parametrize("name", FORMATS)
def test_every_text_of_a_format_is_read_by_independent_code(name):
    schema = {"type": "string", "format": name}
    options = GrammarOptions(json_schema=schema)
    texts = {walk(GrammarConstraint(options, byte_vocabulary(), {END}), seed, limit=200) for seed in range(25)}
    texts.discard(None)
    assert len(texts) > 12
    for text in texts:
        assert judge(schema, text) is None, text


def test_dates_are_those_of_the_calendar():
    grammar = constraint(json_schema={"type": "string", "format": "date"})

    def real(text):
        try:
            return bool(date.fromisoformat(text))
        except ValueError:
            return False

    for year in (0, 1, 4, 96, 100, 400, 1900, 1999, 2000, 2023, 2024, 9999):
        for month, day in ((2, 28), (2, 29), (2, 30), (4, 30), (4, 31), (12, 31), (13, 1), (1, 0)):
            text = f"{year:04}-{month:02}-{day:02}"
            assert takes(grammar, f'"{text}"') == real(text), text
    moment = constraint(json_schema={"type": "string", "format": "date-time"})
    assert takes(moment, '"2024-02-29T23:59:59.5+23:59"')
    for wrong in ("2023-02-29T12:00:00Z", "2024-02-29T23:59:60Z", "2024-02-29T24:00:00Z", "2024-02-29T12:00:00"):
        assert not takes(moment, f'"{wrong}"'), wrong


@pytest.mark.parametrize(
    ("name", "texts"),
    {
        "uri": [
            "https://user@example.com:65535/",
            "https://a.b.c.d.example.com/x?y=z#w",
            "postgres://u:secret@localhost:5432/db",
            "file:///srv/data.json",
            "https://assets-of-us.s3.dualstack.us-east-1.amazonaws.com/",
        ],
        "email": ["averyveryverylongname12345@example.com", "x" * 64 + "@mail.eu.example.co.uk"],
        "hostname": ["orders.production.svc.cluster.local", "localhost", "a" * 30 + ".example.com"],
        "date-time": ["2024-01-02T03:04:05.123456789Z"],
        "byte": ["aGk=", "", "aGkh"],
        "password": ["\u00e9 !"],
    }.items(),
)
def test_formats_take_the_texts_of_every_day(name, texts):
    grammar = constraint(json_schema={"type": ["string", "null"], "format": name})
    for text in texts:
        assert takes(grammar, json.dumps(text, ensure_ascii=False)), text


@pytest.mark.parametrize("text", ["https://a:65536/", "https:///a", "file://", "https://u@@a/"])
def test_what_is_no_address_is_not_taken(text):
    assert not takes(constraint(json_schema={"type": "string", "format": "uri"}), json.dumps(text))


def test_formats_of_other_types_are_nothing_and_unknown_ones_are_refused():
    assert takes(constraint(json_schema={"type": "integer", "format": "int64"}), "3")
    for name in ("soap", "unknown", "uri-reference", "regex"):
        with pytest.raises(UnspoolError, match=f"format '{name}' cannot be enforced"):
            constraint(json_schema={"type": "string", "format": name})
    both = constraint(json_schema={"type": "string", "format": "date", "pattern": "^2"})
    assert takes(both, '"2024-01-01"') and not takes(both, '"1024-01-01"')


@pytest.mark.parametrize(
    ("schema", "right", "wrong"),
    [
        ({"additionalProperties": INTEGER, "minProperties": 2}, '{"a": 1, "b": 2}', '{"a": 1, "a": 2}'),
        (
            {"patternProperties": {"^a": INTEGER}, "additionalProperties": False},
            '{"a": 1, "ab": 2}',
            '{"a": 1, "a": 2}',
        ),
        ({"properties": {"k": INTEGER}, "required": ["k"]}, '{"k": 1, "z": 1}', '{"k": 1, "z": 1, "z": 2}'),
        ({"properties": {"k": INTEGER}, "required": ["k"]}, '{"k": 1, "u": 1}', r'{"k": 1, "\u006b": "x"}'),
        ({"properties": {"a\nb": INTEGER}}, r'{"a\nb": 1}', r'{"a\u000ab": "x"}'),
        ({}, r'{"\n": {"\n": 1}}', r'{"\n": 1, "\u000a": 2}'),
        ({"items": {"type": "object"}, "type": "array"}, '[{"a": 1}, {"a": 1}]', '[{"a": 1, "a": 1}]'),
        ({}, '{"a": {"b": 1}, "b": [{"a": 2}]}', '{"a": {"b": 1}, "b": [], "a": 2}'),
        ({}, '{"a": "a\\", \\"a"}', '{"a": "\\"", "a": 1}'),
    ],
)
def test_a_name_comes_once_in_an_object(schema, right, wrong):
    grammar = constraint(json_schema={"type": "object"} | schema)
    assert takes(grammar, right) and not takes(grammar, wrong)


def test_names_that_run_out_leave_no_comma_behind():
    """Of 1,000 names those that begin like taken ones are left only where one of them is free."""
    pattern = {
        "type": "object",
        "patternProperties": {"^(?:[ab]{9}|x[01])$": {"type": "null"}},
        "additionalProperties": False,
    }
    grammar = constraint(json_schema=pattern)
    assert takes(grammar, '{"x0": null, "x1": null, "aaaaaaaaa": null}')
    for path in ('{"x0": null, "x1": null, "x', '{"aaaaaaaab": null, "aaaaaaaaa": null, "aaaaaaaa'):
        assert not begins(grammar, path)
    few = constraint(json_schema=pattern | {"patternProperties": {"^(a|b)$": {"type": "null"}}})
    assert takes(few, '{"a": null, "b": null}') and not begins(few, '{"a": null, "b": null,')


def test_a_reference_reaches_what_stands_nowhere_else():
    """OpenAPI's components; what is found there is made ready as any schema is."""
    node = {
        "type": "object",
        "properties": {"day": {"type": "string", "format": "date"}, "next": {"$ref": "#/components/a%5Bnode%5D"}},
        "required": ["day"],
        "additionalProperties": False,
    }
    grammar = constraint(json_schema={"$ref": "#/components/a%5Bnode%5D", "components": {"a[node]": node}})
    assert takes(grammar, '{"day": "2024-02-29", "next": {"day": "2023-01-01"}}')
    assert not begins(grammar, '{"day": "2023-02-29')
    node["required"] = ["day", "next"]
    with pytest.raises(UnspoolError, match="without end"):
        constraint(json_schema={"$ref": "#/components/a%5Bnode%5D", "components": {"a[node]": node}})


@pytest.mark.parametrize("value", [9007199254740991.0, 0.1, 3.141592653589793, 1e-7, -2.0, 2.5e-8, 123456789.1234567])
def test_numbers_of_const_are_those_of_the_schema(value):
    text = walk(constraint(json_schema={"enum": [{"a": [value]}]}), 0)
    assert json.loads(text) == {"a": [value]}


@pytest.mark.parametrize("value", [123456789.12345679, 5e-324, 1.23e-30, 2.0**60])
def test_numbers_that_would_be_rounded_are_refused(value):
    with pytest.raises(UnspoolError, match="would be rounded"):
        constraint(json_schema={"const": value})


@pytest.mark.parametrize(
    "draft",
    ["http://json-schema.org/schema#", "https://json-schema.org/draft-07/schema", "http://json-schema.org/schema"],
)
def test_every_usual_spelling_of_a_draft_is_read(draft):
    inside = {"$schema": draft.rstrip("#"), "type": "integer"}
    assert takes(constraint(json_schema={"$schema": draft, "type": "array", "items": inside}), "[1]")
    with pytest.raises(UnspoolError, match="not one of drafts 4"):
        constraint(json_schema={"$schema": [draft]})


def test_what_is_required_and_forbidden_is_told():
    with pytest.raises(UnspoolError, match="requires what it forbids"):
        constraint(json_schema={"type": "object", "required": ["b"], "additionalProperties": False})


def begins(grammar, text):
    path = []
    for byte in text.encode():
        if not grammar.is_allowed(path, byte):
            return False
        path.append(byte)
    return True


def test_a_name_that_a_pattern_lists_is_a_property():
    """The dead end of a pattern that holds none but known names; and both schemas count."""
    schema = {"type": "object", "properties": {"level": {"multipleOf": 5}}, "required": ["level"]}
    schema |= {"patternProperties": {"^level$": INTEGER}, "additionalProperties": False}
    grammar = constraint(json_schema=schema)
    assert takes(grammar, '{"level": 55}')
    assert not begins(grammar, '{"level": 55,') and not takes(grammar, '{"level": 56}')


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "array", "items": INTEGER, "x-guidance": {"lenient": True}, "uniqueItems": True}, "x-guidance"),
        ({"properties": {"a": {"x-guidance": {"lenient": True}}}}, "x-guidance"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "integer", "divisibleBy": 3}, "divisibleBy is a keyword of draft 3"),
        ({"properties": {"a": {"required": True}}}, "required is a list"),
        ({"$schema": "http://json-schema.org/draft-03/schema#"}, "not one of drafts 4"),
        ({"$schema": "http://json-schema.org/schema-1#"}, "not one of drafts 4"),
        ({"type": "number", "multipleOf": 0.01}, "not exact in floating point"),
        ({"type": "integer", "minimum": 2**53 + 1, "maximum": 2**53 + 1}, "no representable number is left"),
        ({"type": "integer", "minimum": 2**64}, "no representable integer"),
        ({"const": 2**53 + 1}, "would be rounded"),
        ({"enum": [1, [{"a": 1e300}]]}, "would be rounded"),
        ({"type": "object", "additionalProperties": False, "minProperties": 1}, "fewer names"),
        ({"$ref": "#"}, "recurses without end"),
        (
            {"type": "object", "properties": {"a": {}, "n": {"$ref": "#"}}, "required": ["a", "n"]},
            "recurses without end",
        ),
        ({"type": "array", "items": {"$ref": "#"}, "minItems": 1}, "recurses without end"),
        ({"type": "string", "pattern": "(?=a)"}, "look-around"),
        ({"type": "string", "format": 3}, "cannot be enforced"),
        ({"type": "integer", "minimum": "3x"}, "wrong value"),
        (False, "no text fits"),
        ("[" * 5000, "not JSON"),
    ],
)
def test_what_cannot_be_met_is_refused_by_name(schema, message):
    with pytest.raises(UnspoolError, match=message):
        constraint(json_schema=schema)


def test_an_endless_branch_is_left_out_where_there_is_another_way():
    endless = {
        "type": "object",
        "properties": {"a": {"type": "null"}, "n": {"$ref": "#/$defs/x"}},
        "required": ["a", "n"],
    }
    schema = {"anyOf": [INTEGER, {"type": "array", "items": {"$ref": "#/$defs/x"}}], "$defs": {"x": endless}}
    grammar = constraint(json_schema=schema)
    assert takes(grammar, "1") and takes(grammar, "[]") and not begins(grammar, "[{")
    tree = {"type": "object", "properties": {"n": {"$ref": "#"}}, "additionalProperties": False}
    assert takes(constraint(json_schema=tree), '{"n": {"n": {}}}')


@pytest.mark.parametrize(
    ("schema", "right", "wrong"),
    [
        ({"type": "integer", "maximum": 2**63 - 1}, ["9223372036854774784", "-5"], ["9223372036854775808"]),
        ({"type": "integer", "maximum": 2**53 + 1}, ["9007199254740992"], ["9007199254740993", "9007199254740994"]),
        ({"type": "integer", "exclusiveMinimum": 2.5}, ["3"], ["2"]),
        ({"type": "number", "exclusiveMinimum": 0}, ["0.5", "0.000001"], ["0", "0.0", "0." + "0" * 400 + "1"]),
        ({"type": "number", "exclusiveMaximum": 1}, ["0.5", "0.990", "-7"], ["1", "1.0", "0.99999999999999999999"]),
        ({"type": "number", "minimum": 0.1}, ["0.1", "0.10"], ["0.09999"]),
        ({"type": "number", "multipleOf": 0.5}, ["1.5", "-2"], ["1.25"]),
        ({"type": "integer", "multipleOf": 7}, ["0", "-21"], ["22", "7" * 40]),
        ({"type": "number"}, ["1e99", "-1.5E-7", "1" * 100], ["1e400", "1e100", "1" * 101, "0." + "1" * 101]),
        ({"type": "integer"}, ["9" * 100], ["9" * 4301]),
        ({"type": "array", "uniqueItems": False}, ["[1, 1]"], ["[1, 1"]),
        ({"type": "string", "minLength": 2}, ['"ab"', '"😀b"'], [r'"\ud83d\ude00"', '"a"']),
        ({"type": "object", "properties": {"x-guidance": INTEGER}}, ['{"x-guidance": 1}'], ['{"x-guidance": "a"}']),
        (True, ['[1, {"a": null}]'], ["[1,"]),
    ],
)
def test_numbers_and_texts_at_the_edges(schema, right, wrong):
    grammar = constraint(json_schema=schema)
    assert [takes(grammar, text) for text in right] == [True] * len(right)
    assert [takes(grammar, text) for text in wrong] == [False] * len(wrong)
    for text in right:
        assert judge(schema, text) is None


@pytest.mark.parametrize(
    ("pattern", "right", "wrong"),
    [
        ("^[[:alpha:]]$", ['"a]"', '":]"'], ['"a"', '"b"']),
        ("^[a&&b]$", ['"a"', '"&"'], ['""']),
        ("^a.$", ['"ab"'], ['"a\\r"', '"a\\n"']),
        ("^a{,2}$", ['"aa"', '""'], ['"a{,2}"']),
        (r"^\D\w$", ['"é_"'], ['"3a"', '"aé"', '"\u0663a"']),
        (r"^ab\Z", ['"ab"'], ['"abc"']),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_pattern_is_pythons(pattern, right, wrong):
    schema = {"type": "string", "pattern": pattern}
    grammar = constraint(json_schema=schema)
    assert [takes(grammar, text) for text in right + wrong] == [True] * len(right) + [False] * len(wrong)
    assert not any(judge(schema, text) for text in right)


def test_strict_json():
    assert strict_json('{"a": [1e99, "x"]}') == json.loads('{"a": [1e99, "x"]}')
    for text in ('{"a": 1, "a": 2}', '[{"b": 1, "b": 1}]', "NaN", "[-Infinity]", "1e400", "[-1e999]"):
        with pytest.raises(ValueError, match=r"twice|not a JSON number|too large"):
            strict_json(text)
