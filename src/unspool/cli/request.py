"""The flags of a request, derived from the fields of its dataclasses: the shell has what Python has.

A flag's help is the first sentence of the field's docstring, with its range and default.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from collections.abc import Sequence as AnySequence
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer

from unspool.decoding.request import CanvasArguments, GenerationArguments, check_names
from unspool.engine.option import meanings, range_of
from unspool.errors import UnspoolError
from unspool.storage.text_files import parse_json, read_text

Given = dict[str, Any]
"""The flags that were given, by the name of their field."""

PANELS = {
    "Method": ("method", "acceptance", "shapers", "probes"),
    "Sampling": (
        "max_new_tokens",
        "temperature",
        "top_k",
        "top_p",
        "min_p",
        "typical_p",
        "repetition_penalty",
        "no_repeat_ngram_size",
        "seed",
        "stop",
        "logprobs",
        "alternatives",
        "chat",
    ),
    "Constrain the text": ("json_schema", "regex", "grammar", "choices", "constraint"),
    "Diffusion models": ("canvas", "cache", "guidance_scale", "stop_at_eos", "truncate_at_eos"),
}
"""Where the help shows each flag."""

PYTHON_ONLY = {"bad_words_ids", "sequence_bias", "eos_token_id", "on_event", "batch", "memories"}
"""Fields without a flag: token ids, objects, and those that only several prompts need."""


@dataclass(frozen=True)
class _Special:
    """A flag that is not simply its field.

    Attributes:
        declared: how it is written; empty: as the field.
        kind: type in the shell; None: as the field.
        read: makes the field's value.
        note: more help.
    """

    declared: str = ""
    kind: Any = None
    read: Callable[[Any], Any] = lambda value: value
    note: str = ""


def _pieces(canvas: str) -> list[Any]:
    try:
        pieces = parse_json(canvas)
    except ValueError:
        pieces = None
    if not isinstance(pieces, list):
        raise UnspoolError(f'--canvas is a JSON list such as \'["def f0(", 3, "):"]\', not {canvas!r}')
    return pieces


_SPECIAL = {
    "shapers": _Special("--shaper"),
    "probes": _Special("--probe", note="; see --json"),
    "chat": _Special("--chat/--no-chat"),
    "logprobs": _Special(note=", with --json"),
    "alternatives": _Special(note="; 8 with --trace"),
    "json_schema": _Special(kind=Path, read=read_text, note=", a file"),
    "grammar": _Special(kind=Path, read=read_text, note=", a file"),
    "canvas": _Special(kind=str, read=_pieces, note=", as JSON"),
}
_PLAIN = _Special()


def flag(name: str) -> str:
    """How a field is written in the shell."""
    return (_SPECIAL.get(name, _PLAIN).declared or f"--{name.replace('_', '-')}").split("/")[0]


def request_flags(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command: its parameter ``given`` becomes the flags of a request.

    Args:
        names: the fields to make flags of; by default all, for either loop.
    """
    wanted = {panel: [name for name in fields_of if not names or name in names] for panel, fields_of in PANELS.items()}

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @wraps(function)
        def command(**values: Any) -> None:
            given = {name: values.pop(name) for fields_of in wanted.values() for name in fields_of}
            function(**values, given={name: value for name, value in given.items() if value not in (None, [])})

        hints = get_type_hints(function, include_extras=True)
        parameters: list[inspect.Parameter] = []
        for name, parameter in inspect.signature(function).parameters.items():
            own = [parameter.replace(annotation=hints[name])] if name != "given" else _flags(wanted, not names)
            parameters += own
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return command

    return decorate


def arguments_of(model: str | None, given: Given, assistant: str | None) -> GenerationArguments | CanvasArguments:
    """The arguments of a request to a model, checked as far as possible before it is loaded.

    Raises:
        UnspoolError: with what to do.
    """
    from unspool.models.diffusion import is_diffusion

    kind = CanvasArguments if is_diffusion(model) else GenerationArguments
    check_names(kind, given, str(model), flag)
    made = kind(**values_of(given))
    made.check(assistant)
    return made


def values_of(given: Given) -> dict[str, Any]:
    """The field values of the flags; files are read."""
    return {name: _SPECIAL.get(name, _PLAIN).read(value) for name, value in given.items()}


def files_of(given: Given) -> list[Path]:
    """The files that the flags name."""
    return [value for value in given.values() if isinstance(value, Path)]


def _flags(wanted: Mapping[str, AnySequence[str]], on_canvas: bool) -> list[inspect.Parameter]:
    made = []
    for panel, names in wanted.items():
        for name in names:
            special = _SPECIAL.get(name, _PLAIN)
            kind = special.kind or _shell_kind(_hints()[name])
            declared = [special.declared or flag(name)]
            info = typer.Option(*declared, help=_help(name, kind, on_canvas), rich_help_panel=panel, show_default=False)
            made.append(
                inspect.Parameter(
                    name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, info]
                )
            )
    return made


def _hints() -> Mapping[str, Any]:
    return get_type_hints(CanvasArguments) | get_type_hints(GenerationArguments)


def _shell_kind(declared: Any) -> Any:
    """The shell type of a field: the first of its types that can be written."""
    for kind in get_args(declared) if get_origin(declared) in (Union, types.UnionType) else (declared,):
        if kind in (int, float, bool, str):
            return kind
        if kind is Any or get_origin(kind) is Literal:
            return str
        if get_origin(kind) is AnySequence:
            return list[str]
    raise TypeError(f"no flag can be made of {declared}")


def _help(name: str, kind: Any, on_canvas: bool) -> str:
    texts, canvas = meanings(GenerationArguments), meanings(CanvasArguments)
    text = _sentence(texts[name] if name in texts else canvas[name])
    text = f"{text}{_SPECIAL.get(name, _PLAIN).note}"
    text += "; may be repeated" if get_origin(kind) is list else ""
    declared = {field.name: field for cls in (CanvasArguments, GenerationArguments) for field in fields(cls)}[name]
    facts = [str(range_of(declared) or "")]
    if isinstance(declared.default, int | float | str) and kind is not bool:
        facts.append(f"default {declared.default:g}" if kind in (int, float) else f"default {declared.default}")
    shown = "; ".join(filter(None, facts))
    text = f"{text} ({shown})." if shown else f"{text}."
    text += _default(texts.get(name, canvas.get(name, "")))
    if on_canvas and name in texts and name in CanvasArguments.__annotations__:
        own = _sentence(canvas[name])
        text += f" On a canvas: {own[0].lower()}{own[1:]}.{_default(canvas[name])}"
    return text.replace("``", "`")


def _sentence(text: str) -> str:
    return text.split(". ", maxsplit=1)[0].removesuffix(".")


def _default(text: str) -> str:
    """The sentence of a docstring that names the default."""
    return next((f" {part.removesuffix('.')}." for part in text.split(". ") if part.startswith("Default: ")), "")
