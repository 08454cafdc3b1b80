"""The analyser of Python: jedi, in this process. It reads a project's files and never runs them.

jedi's answers are neither sound nor complete. There is no answer if a class makes attributes on access or assignment
(``__getattr__``, ``setattr``, ``__dict__``, a metaclass), since these have no name in its text. A module with a
``__getattr__``, such as numpy, still has its names: those written in it, and words in its strings, where its
``__getattr__`` finds the others. Names that the text itself uses after the same object are accepted.

Special methods of an object are not suggested, except after ``super()`` and classes: every object has two dozen of
them that are hardly ever called, and a small model whose own name is masked would choose one of those. If only special
names are left there is no answer either: such an object gets its attributes from elsewhere.

Left out: other analysers over the language-server protocol (the paper's own way; for Python its client starts a server
that wraps jedi). Asking only where one type is inferred: jedi's answer is the union over all types that it infers, and
it does not report which ones it could not infer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from inspect import Parameter as Kinds
from pathlib import Path
from typing import Any

from unspool.errors import UnspoolError
from unspool.methods.constraints.monitor.analyser import Parameter, Signature

_POSITIONAL = (Kinds.POSITIONAL_ONLY, Kinds.POSITIONAL_OR_KEYWORD)
_SPECIAL = re.compile(r"__\w+__")
_SUPER = re.compile(r"\bsuper\([^()]*\)\.$")
_MAKES_ATTRIBUTES = re.compile(r"\bsetattr\(\s*(?:self|cls)\s*,|(?:\b(?:self|cls)\.__dict__|\bvars\(self\))\.update\(")
_INIT = re.compile(r"\bdef __init__\((?:.|\n)*?(?=\n[ \t]*(?:async )?def |\Z)")
# The metaclasses of typeshed add no names that jedi does not list.
_METACLASS = re.compile(r"\bmetaclass\s*=\s*(?!(?:\w+\.)*(?:ABCMeta|Enum\w+|type)\b)")
_NO_CODE = re.compile(r"""(\"{3}|'{3})(?:.|\n)*?\1|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|#[^\n]*""")
_OBJECT = re.compile(r"(?<![\w.)\]}\"'])(?!(?:self|cls)\.)(?:[^\W\d]\w*\.)+$")
_WORDS_IN_STRINGS = re.compile(r"""["']([^\W\d]\w*)["']""")
_ANY_NUMBER = (Kinds.VAR_POSITIONAL, Kinds.VAR_KEYWORD)


class JediAnalyser:
    """An ``Analyser``.

    Args:
        project: directory whose modules can be imported; None: only installed ones can.
        file: path of the text, which need not exist; relative imports start from it. By default one in ``project``.

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
        script, (line, column) = self._at(text), _place(text, offset)
        found = [completion for completion in script.complete(line, column) if completion.type != "keyword"]
        kinds = {completion.name: completion.type for completion in found}
        objects = script.infer(line, max(0, column - 1))
        names = set[str]()
        if getter := next((completion for completion in found if completion.name == "__getattr__"), None):
            module = getter.parent()
            if getter.type != "function" or module is None or module.type != "module":
                return ()
            names = set(_WORDS_IN_STRINGS.findall(self._source(module, text)))
        if self._makes_attributes(found, objects, text):
            return ()
        # Only classes have an "mro".
        special = "mro" in kinds or _SUPER.search(text, 0, offset)
        names |= {n for n, kind in kinds.items() if special or kind != "function" or not _SPECIAL.fullmatch(n)}
        if all(_SPECIAL.fullmatch(name) for name in names):
            return ()
        return sorted(names | _seen(text, offset))

    def signatures(self, text: str, offset: int) -> Sequence[Signature]:
        return [
            tuple(
                Parameter(param.name, "=" not in param.to_string(), param.kind in _POSITIONAL)
                for param in found.params
                if param.kind not in _ANY_NUMBER
            )
            for found in self._at(text).get_signatures(*_place(text, offset))
        ]

    def _makes_attributes(self, found: Sequence[Any], objects: Sequence[Any], text: str) -> bool:
        """Whether a class of an object that defines what was found makes attributes that are not written in its text:
        by its ``__init__``, or by its metaclass.
        """
        parents = {parent.full_name: parent for one in found if one.type == "function" and (parent := one.parent())}
        classes = [one for one in (*parents.values(), *objects) if one.type in ("class", "instance")]
        return any(
            any(map(_MAKES_ATTRIBUTES.search, _INIT.findall(source)))
            or (one.type == "class" and _METACLASS.search(source.partition(":")[0]))
            for one in classes
            if (source := self._source(one, text))
        )

    def _source(self, found: Any, text: str) -> str:
        """Source of a module or of a definition; empty for built-ins and for stubs, which define no behaviour."""
        path = found.module_path
        if path != self._file:
            if path is None or path.suffix != ".py" or not path.is_file():
                return ""
            text = path.read_text("utf-8", "replace")
        start, end = found.get_definition_start_position(), found.get_definition_end_position()
        return "".join(text.splitlines(keepends=True)[start[0] - 1 : end[0]]) if start and end else text

    def _at(self, text: str) -> Any:
        return self._script(text, path=self._file, project=self._project)


def _place(text: str, offset: int) -> tuple[int, int]:
    """Line, from 1, and column, from 0."""
    line = text.count("\n", 0, offset)
    return line + 1, offset - (text.rfind("\n", 0, offset) + 1)


def _seen(text: str, offset: int) -> set[str]:
    """Names after the same object elsewhere in the text, in code."""
    place = _OBJECT.search(text, text.rfind("\n", 0, offset) + 1, offset)
    if place is None:
        return set()
    code = _NO_CODE.sub("''", text[:offset]) + _NO_CODE.sub("''", text[offset:])
    return set(re.findall(rf"(?<![\w.]){re.escape(place[0])}([^\W\d]\w*)", code))


@contextmanager
def shared_answers() -> Iterator[None]:
    """Ask about each text once in this process, without a project: for checks that decode the same again and again."""
    asked = JediAnalyser.suggestions
    JediAnalyser.suggestions = lambda self, text, offset: _answer(text, offset)  # type: ignore[method-assign]
    try:
        yield
    finally:
        JediAnalyser.suggestions = asked  # type: ignore[method-assign]


@cache
def _answer(text: str, offset: int) -> Sequence[str]:
    return _suggestions(JediAnalyser(), text, offset)


_suggestions = JediAnalyser.suggestions
