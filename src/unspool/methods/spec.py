"""How a method and its options are written: on the command line, in Python, in traces and results.

``token_recycling``, ``token_recycling:nodes=8``, ``rsd(branching=(3, 2))``; parts of the denoise loop are joined by
``+``. After a colon, a value is plain text that is parsed as its option's declared type. In brackets, it is a Python
literal, such as a tuple or a text with a comma. Options that are left out have the paper's values. In Python, an object
of the method's options works too: ``TokenRecyclingOptions(nodes=8)``.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any

from unspool.engine.typed import shown
from unspool.errors import UnspoolError

_NAME = re.compile(r"\w+")
_KEY = re.compile(r"\s*(\w+)\s*=")
_SCALARS = (str, int, float, bool, type(None))


@dataclass(frozen=True)
class Spec:
    """A method's name and the given options.

    Attributes:
        name: of the method.
        values: by option: a text where it was written as ``name:option=text``, else the value.
        written: whether the values are texts that must still be parsed.
    """

    name: str
    values: dict[str, Any]
    written: bool = False


def split(text: str, at: str) -> list[str]:
    """The pieces between separators that are outside brackets and quotes, stripped.

    Args:
        at: ``,`` between specs, where ``option=value`` belongs to the spec before it, or ``+``, after which only a
            name begins a new spec, so that ``1e+5`` is a number.
    """
    pieces, depth, quote, start = [], 0, "", 0
    for i, c in enumerate(text):
        if quote:
            quote = "" if c == quote and text[i - 1] != "\\" else quote
        elif c in "'\"" and depth:
            quote = c
        elif c in "([{":
            depth += 1
        elif c in ")]}":
            depth -= 1
        elif c == at and depth == 0:
            rest = text[i + 1 :]
            if _KEY.match(rest) if at == "," else not re.match(r"\s*[a-z_]", rest):
                continue
            pieces.append(text[start:i])
            start = i + 1
    return [piece.strip() for piece in (*pieces, text[start:])]


def parse(text: str, noun: str = "method") -> Spec:
    """Parse one spec; ``noun`` says in messages what it should name.

    Raises:
        UnspoolError: if it is not a spec.
    """
    text = text.strip()
    name = _NAME.match(text)
    if name is None:
        raise UnspoolError(f"{shown(text)} names no {noun}; write its name, with options as in token_recycling:nodes=8")
    rest = text[name.end() :]
    if not rest:
        return Spec(name[0], {})
    if rest[0] == ":":
        return Spec(name[0], _written(text, rest[1:]), written=True)
    return Spec(name[0], _called(text))


def _written(text: str, options: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    keys = list(re.finditer(r"(?:^|,)\s*(\w+)\s*=", options))
    if not keys or keys[0].start():
        raise _unreadable(text)
    for match, after in zip(keys, [*keys[1:], None], strict=True):
        if match[1] in found:
            raise _twice(text, match[1])
        found[match[1]] = options[match.end() : after.start() if after else None].strip()
    return found


def _called(text: str) -> dict[str, Any]:
    try:
        call = ast.parse(text, mode="eval").body
        if not isinstance(call, ast.Call) or call.args or any(word.arg is None for word in call.keywords):
            raise _unreadable(text)
        names = [str(word.arg) for word in call.keywords]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise _twice(text, twice)
        return {str(word.arg): ast.literal_eval(_Infinities().visit(word.value)) for word in call.keywords}
    except (SyntaxError, TypeError, ValueError, RecursionError, MemoryError):
        raise _unreadable(text) from None


class _Infinities(ast.NodeTransformer):
    """Reads ``inf``: Python writes that number so, but it is not a Python literal."""

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.copy_location(ast.Constant(math.inf), node) if node.id == "inf" else node


def _twice(text: str, option: str) -> UnspoolError:
    return UnspoolError(f"{shown(text)} gives {option} twice; give it once")


def _unreadable(text: str) -> UnspoolError:
    return UnspoolError(
        f"cannot read {shown(text)}; write options as name:option=value,option=value or name(option=value), with texts "
        "in quotes in the second form"
    )


def canonical(name: str, options: Any) -> str:
    """The spec of a method with these options: those that differ from their defaults, in declared order."""
    given = {
        field.name: value for field in fields(options) if not _is_default(field, value := getattr(options, field.name))
    }
    if not given:
        return name
    if all(_plain(value) for value in given.values()):
        return f"{name}:" + ",".join(f"{option}={value}" for option, value in given.items())
    return f"{name}(" + ", ".join(f"{option}={_literal(value)!r}" for option, value in given.items()) + ")"


def _is_default(field: Any, value: Any) -> bool:
    if field.default is not MISSING:
        return bool(value == field.default and type(value) is type(field.default))
    return field.default_factory is not MISSING and value == field.default_factory()


def _plain(value: Any) -> bool:
    return isinstance(value, _SCALARS) and not re.search(r"[,+=@'\"()\[\]{}\s]", str(value)) and value != ""


def _literal(value: Any) -> Any:
    if isinstance(value, _SCALARS):
        return value
    if isinstance(value, Mapping):
        return {_literal(key): _literal(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return list(map(_literal, value))
    if isinstance(value, Sequence | frozenset | set):
        return tuple(map(_literal, value))
    return str(value)
