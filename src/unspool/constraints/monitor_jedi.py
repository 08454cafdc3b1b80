"""The analyser of Python: jedi, in this process. It reads a project's files and never runs them.

jedi's answers are neither sound nor complete. Where a class or module makes attributes as they are asked for
(``__getattr__``), there is no answer. Special methods of an object are not suggested, except behind ``super()`` and
classes: every object has two dozen of them that hardly anyone calls, and a small model whose own name is left out would
take one of those.

Left out: other analysers over the language-server protocol (the paper's own way; for Python its client starts a server
around jedi). Asking only where one type is inferred: jedi's answer is the union over all types that it infers, and it
does not tell which ones it could not infer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from inspect import Parameter as Kinds
from pathlib import Path
from typing import Any

from unspool.constraints.monitor_analyser import Parameter, Signature
from unspool.errors import UnspoolError

_POSITIONAL = (Kinds.POSITIONAL_ONLY, Kinds.POSITIONAL_OR_KEYWORD)
_SPECIAL = re.compile(r"__\w+__")
_SUPER = re.compile(r"\bsuper\([^()]*\)\.$")
_ANY_NUMBER = (Kinds.VAR_POSITIONAL, Kinds.VAR_KEYWORD)


class JediAnalyser:
    """An ``Analyser``.

    Args:
        project: directory whose modules can be imported; None: only installed ones can.
        file: that the text is of, which need not exist; relative imports start from it. By default one in ``project``.

    Raises:
        UnspoolError: if jedi is not installed.
    """

    def __init__(self, project: Path | None = None, file: Path | None = None) -> None:
        try:
            import jedi
        except ImportError as error:
            raise UnspoolError('the monitor needs jedi; pip install "unspool[monitor]"') from error
        self._script = jedi.Script
        self._project = jedi.Project((project or Path.cwd()).absolute(), smart_sys_path=project is not None)
        self._file = (file or (project or Path.cwd()) / "unspool_output.py").absolute()

    def suggestions(self, text: str, offset: int) -> Sequence[str]:
        found = self._at(text).complete(*_place(text, offset))
        kinds = {completion.name: completion.type for completion in found if completion.type != "keyword"}
        if "__getattr__" in kinds:
            return ()
        # Only classes have an "mro".
        special = "mro" in kinds or _SUPER.search(text, 0, offset)
        return [name for name, kind in kinds.items() if special or kind != "function" or not _SPECIAL.fullmatch(name)]

    def signatures(self, text: str, offset: int) -> Sequence[Signature]:
        return [
            tuple(
                Parameter(param.name, "=" not in param.to_string(), param.kind in _POSITIONAL)
                for param in found.params
                if param.kind not in _ANY_NUMBER
            )
            for found in self._at(text).get_signatures(*_place(text, offset))
        ]

    def _at(self, text: str) -> Any:
        return self._script(text, path=self._file, project=self._project)


def _place(text: str, offset: int) -> tuple[int, int]:
    """Line, from 1, and column, from 0."""
    line = text.count("\n", 0, offset)
    return line + 1, offset - (text.rfind("\n", 0, offset) + 1)
