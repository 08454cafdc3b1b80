"""Converts options to their declared types, in one place: similar types are accepted, others refused by name.

numpy numbers become Python numbers, arrays and generators become sequences. A value of another type, or an empty
string, is refused in one line that names the option: a given option counts, so an empty one cannot mean "none".
"""

from __future__ import annotations

import ast
import inspect
import math
import operator
import os
import types
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from functools import cache, wraps
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from unspool.errors import UnspoolError

_Function = TypeVar("_Function", bound=Callable[..., Any])

ONE_IS_A_LIST = {"one is a list": True}
"""Metadata of a list field that also accepts a single entry."""

_SHOWN = 60
"""Maximum number of characters of a value in a message."""


class _MisfitError(Exception):
    """A value does not fit its type. Caught where the option's name is known."""


class _EmptyError(_MisfitError):
    """A value of the right type is empty."""


def typed(name: str, declared: Any, value: Any) -> Any:
    """``value`` converted to the declared type of the option ``name``.

    Raises:
        UnspoolError: with the option's name, the accepted type and the given value.
    """
    try:
        return _fit(declared, value)
    except _EmptyError:
        raise UnspoolError(f"{name} is empty; give a value or leave it out") from None
    except _MisfitError:
        raise UnspoolError(f"{name} must be {_told(declared)}, not {shown(value)}") from None


def settle(options: Any) -> None:
    """Convert every field of a frozen dataclass to its declared type; call it first in ``__post_init__``.

    Raises:
        UnspoolError: as ``typed``.
    """
    kind: Any = type(options)
    hints = _hints(kind)
    for field in fields(options):
        value = getattr(options, field.name)
        if field.metadata == ONE_IS_A_LIST and (isinstance(value, str) or _is_single(value)):
            value = (value,)
        object.__setattr__(options, field.name, typed(field.name, hints[field.name], value))


def values_of(options: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of a dataclass, each converted to its field's declared type.

    Raises:
        UnspoolError: as ``typed``.
    """
    lists = {field.name for field in fields(options) if field.metadata == ONE_IS_A_LIST}
    return {
        name: typed(name, _hints(options)[name], (value,) if name in lists and isinstance(value, str) else value)
        for name, value in given.items()
    }


def texts_of(options: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Values given as text, each parsed by its field's declared type; unknown names stay unchanged."""
    hints = _hints(options)
    return {name: _from_text(hints[name], text) if name in hints else text for name, text in given.items()}


def _from_text(declared: Any, text: str) -> Any:
    kinds = get_args(declared) if get_origin(declared) in (Union, types.UnionType) else (declared,)
    if types.NoneType in kinds and text in ("None", "none"):
        return None
    if any(kind in (str, Path) or (get_origin(kind) is Literal and text in get_args(kind)) for kind in kinds):
        return text
    if bool in kinds and text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (SyntaxError, TypeError, ValueError, RecursionError, MemoryError):
        pass
    try:
        return float(text)  # inf
    except ValueError:
        return text  # refused by its type


def arguments_of(function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of a function, each converted to its declared type; unknown names stay unchanged.

    Raises:
        UnspoolError: as ``typed``.
    """
    hints = get_type_hints(function)
    return {name: typed(name, hints.get(name, Any), value) for name, value in given.items()}


def typed_options(*free: str) -> Callable[[_Function], _Function]:
    """Decorates a function so that its arguments are checked first.

    Args:
        free: parameters that are not checked.
    """

    def decorate(function: _Function) -> _Function:
        signature = inspect.signature(function)
        named = {
            name
            for name, parameter in signature.parameters.items()
            if name not in free and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        }

        @wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs)
            for name in named & bound.arguments.keys():
                declared = _declared(function, name)
                bound.arguments[name] = typed(name, declared, bound.arguments[name])
            return function(*bound.args, **bound.kwargs)

        return checked  # type: ignore[return-value]

    return decorate


def shown(value: Any) -> str:
    """A value in one short line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


@cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


@cache
def _declared(function: Callable[..., Any], name: str) -> Any:
    # One by one: other parameters may be declared with types imported only for type checking.
    annotation = inspect.signature(function).parameters[name].annotation
    return eval(annotation, function.__globals__) if isinstance(annotation, str) else annotation


def _fit(declared: Any, value: Any) -> Any:
    origin, args = get_origin(declared), get_args(declared)
    if origin in (Union, types.UnionType):
        return _fit_any(args, value)
    if origin is Literal:
        if isinstance(value, str) and value in args:
            return str(value)
        raise _MisfitError
    if origin in _SEQUENCES or declared in _SEQUENCES:
        return _fit_sequence(declared if origin is None else origin, args, value)
    if origin in (Mapping, dict):
        if not isinstance(value, origin):
            raise _MisfitError
        if origin is dict:
            return value  # the user's own object, which is written to
        return {_fit(args[0], key): _fit(args[1], entry) for key, entry in value.items()}
    if declared in _PLAIN:
        return _PLAIN[declared](value)
    kind = origin or declared
    if kind in (None, types.NoneType):
        fits = value is None
    elif kind is Callable:
        fits = callable(value)
    else:
        fits = not isinstance(kind, type) or isinstance(value, kind)
    if not fits:
        raise _MisfitError
    return value


def _fit_any(kinds: Sequence[Any], value: Any) -> Any:
    """Convert to the first type of a union that fits."""
    empty = False
    for kind in kinds:
        try:
            return _fit(kind, value)
        except _EmptyError:
            empty = True
        except _MisfitError:
            pass
    raise _EmptyError if empty else _MisfitError


def _fit_sequence(kind: Any, args: tuple[Any, ...], value: Any) -> Any:
    if isinstance(value, str | bytes | bytearray | Mapping) or not isinstance(value, Iterable):
        raise _MisfitError
    if hasattr(value, "tolist"):  # an array or a tensor
        value = value.tolist()
        if not isinstance(value, list):
            raise _MisfitError
    given = list(value)
    if kind is tuple and Ellipsis not in args and len(args) != len(given):
        raise _MisfitError
    each = args if kind is tuple and Ellipsis not in args else (args[:1] or (Any,)) * len(given)
    fitted = [_fit(declared, entry) for declared, entry in zip(each, given, strict=True)]
    if kind is frozenset:
        return frozenset(fitted)
    return fitted if isinstance(value, list) and kind is not tuple else tuple(fitted)


def _is_single(value: Any) -> bool:
    return hasattr(value, "__index__") and getattr(value, "ndim", 0) == 0


def _whole(value: Any) -> int:
    if isinstance(value, bool | np.bool_):
        raise _MisfitError
    try:
        return operator.index(value)
    except TypeError:
        raise _MisfitError from None


def _number(value: Any) -> float:
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number):
        raise _MisfitError
    try:
        number = float(value)
    except (TypeError, OverflowError):  # a complex number, or an integer beyond all floats
        raise _MisfitError from None
    if math.isnan(number):
        raise _MisfitError
    return number


def _flag(value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise _MisfitError
    return bool(value)


def _text(value: Any) -> str:
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str):
        raise _MisfitError
    if not text:
        raise _EmptyError
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair is not text
        raise _MisfitError from None
    return str(text)


def _path(value: Any) -> Path:
    return Path(_text(value))


_PLAIN: dict[Any, Callable[[Any], Any]] = {
    int: _whole,
    float: _number,
    bool: _flag,
    str: _text,
    Path: _path,
    Any: lambda value: value,
}
_SEQUENCES = (Sequence, Collection, Iterable, list, tuple, frozenset)
_NAMES: dict[Any, tuple[str, str]] = {
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    bool: ("True or False", "truth values"),
    str: ("a text", "texts"),
    Path: ("a path", "paths"),
    Any: ("a value", "values"),
    types.NoneType: ("None", "None"),
    Callable: ("callable", "callables"),
}


def _told(declared: Any, several: bool = False) -> str:
    """A type, described in words."""
    origin, args = get_origin(declared), get_args(declared)
    if origin in (Union, types.UnionType, Literal):
        named = map(str, args) if origin is Literal else (_told(kind, several) for kind in args)
        told = list(dict.fromkeys(named))
        return " or ".join([", ".join(told[:-1]), told[-1]] if len(told) > 1 else told)
    if origin is tuple and Ellipsis not in args:
        return f"{'pairs' if several else 'a pair'} of {_told(args[0], True)}"
    if origin in _SEQUENCES or declared in _SEQUENCES:
        return f"{'lists' if several else 'a list'} of {_told(args[0] if args else Any, True)}"
    if origin in (Mapping, dict):
        return f"a mapping of {_told(args[0], True)} to {_told(args[1], True)}"
    kind = origin or declared
    if kind in _NAMES:
        return _NAMES[kind][several]
    return f"a {kind.__name__}" if isinstance(kind, type) else str(kind)
