"""Prompts that ask for one change to code from the standard library, so that nearly all of the answer is a copy."""

from __future__ import annotations

import ast
from importlib import import_module
from inspect import getsource

from unspool.suites.prompts import Prompt

_MODULES = (
    "bisect", "calendar", "cmd", "colorsys", "copy", "fileinput", "fnmatch", "getpass", "heapq", "html", "keyword",
    "linecache", "mimetypes", "netrc", "numbers", "opcode", "pprint", "queue", "quopri", "reprlib", "sched", "shlex",
    "string", "tempfile", "textwrap", "timeit", "tokenize", "trace",
)  # fmt: skip
_LINES = range(18, 46)


def prompts() -> list[Prompt]:
    """One prompt per module: its first function or class of 18 to 45 lines, to be returned under another name."""
    made = []
    for module in _MODULES:
        source = getsource(import_module(module))
        lines = source.splitlines()
        for node in ast.parse(source).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.end_lineno is not None:
                code = lines[node.lineno - 1 : node.end_lineno]
                if len(code) in _LINES and node.name not in "\n".join(code[1:]):
                    made.append(_prompt(module, node, "\n".join(code)))
                    break
    return made


def _prompt(module: str, node: ast.FunctionDef | ast.ClassDef, code: str) -> Prompt:
    kind = "class" if isinstance(node, ast.ClassDef) else "function"
    text = (
        f"Here is some Python code:\n\n```python\n{code}\n```\n\nRename the {kind} `{node.name}` to `{node.name}_new` "
        "and leave the rest as it is. Print the whole changed code in one code block and nothing else."
    )
    return Prompt(f"source-edit-{module}", "source-edit", text)
