"""The base of all commands: help that fits the terminal, and a check for empty values and invalid text."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand

from unspool.errors import UnspoolError


class App(typer.Typer):
    """A ``typer.Typer`` of ``Command``s."""

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Any], Any]:
        return super().command(name, cls=Command, **settings)


class Command(TyperCommand):
    """A command that rejects empty values, and values that are not text, before it reads any.

    Later code cannot see the difference: an empty path is the current directory, and an empty string counts as unset.
    """

    def __init__(self, *arguments: Any, help: str | None = None, **settings: Any) -> None:
        super().__init__(*arguments, help=help and _reflowed(help), **settings)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given, *_ = self.make_parser(ctx).parse_args(list(args))
        for parameter in self.get_params(ctx):
            value = given.get(parameter.name)
            for text in value if isinstance(value, list | tuple) else [value]:
                if text == "":
                    raise UnspoolError(f"{_called(parameter)} is empty; give a value, or omit it")
        rest = super().parse_args(ctx, args)
        for parameter in self.get_params(ctx):
            value = ctx.params.get(parameter.name)
            for text in value if isinstance(value, list | tuple) else [value]:
                if isinstance(text, str):
                    check_text(_called(parameter), text)
        return rest


def check_text(what: str, text: str) -> None:
    """Reject a string that Python made of bytes that are not UTF-8.

    Args:
        what: names the string in the message.

    Raises:
        UnspoolError: for such a string.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UnspoolError(f"{what} is not UTF-8: {text[:40]!a}; convert it") from error


def _called(parameter: Any) -> str:
    is_option = parameter.param_type_name == "option"
    return max(parameter.opts, key=len) if is_option else f"the {str(parameter.name).replace('_', ' ')}"


def _reflowed(text: str) -> str:
    """Join the lines of each paragraph, so that the terminal wraps them; indented examples keep their lines."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(_example(part) if part.startswith(" ") else " ".join(part.split()) for part in paragraphs)


def _example(command: str) -> str:
    """A command wrapped to 80 columns; it can be pasted as it is."""
    lines = [" "]
    for word in _WORD.findall(command):
        if len(lines[-1]) + 1 + len(word) > _WIDTH:
            lines.append("     ")
        lines[-1] += f" {word}"
    return " \\\n".join(lines)


_WIDTH = 74  # leaves room for the margins and the continuation sign
_WORD = re.compile(r"""(?:"[^"]*"|'[^']*'|\S)+""")
