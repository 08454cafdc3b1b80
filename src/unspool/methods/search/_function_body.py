"""Where the body of a Python function ends that a model writes after signature and docstring (AdaDec's stop rule)."""

from __future__ import annotations

import re
from collections.abc import Callable

from unspool.engine.search import Output

# A line that is neither blank nor indented, or four blank lines in a row.
_END = re.compile(r"^\S|(?:^[ \t]*\n){4}", re.MULTILINE)


class FunctionBody:
    """Decides whether an output has left the function, and cuts it there.

    Args:
        text: returns the text of an output.
        prompt: text of the prompt. If it does not end with a line break, the output's first line continues its last.
    """

    def __init__(self, text: Callable[[Output], str], prompt: str) -> None:
        self._text = text
        self._inside = not prompt.endswith("\n")

    def __call__(self, output: Output) -> bool:
        return self._end(self._text(output)) is not None

    def cut(self, text: str) -> str:
        """The text up to the end of the function."""
        return text[: self._end(text)]

    def _end(self, text: str) -> int | None:
        start = text.find("\n") + 1 if self._inside else 0
        if self._inside and not start:
            return None
        found = _END.search(text, start)
        return found.start() if found else None
