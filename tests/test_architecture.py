"""The rules of the house: imports run downwards, methods do not know each other, names are files, files are small."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from unspool import methods
from unspool.decoding.request import GenerationArguments

_HOOKS = str(Path(__file__).parents[1] / "docs" / "hooks")
sys.path.append(_HOOKS)
from architecture import LAYERS, ROOT, imports, picture, sources  # noqa: E402

sys.path.remove(_HOOKS)

LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
TRAINERS = {"train", "data"}
"""Leaves that only ``unspool train`` loads, by name."""

METHOD_LINES, CORE_LINES = 250, 400

HOMONYMS = {"plain": "report", "prompt_lookup": "bench", "edit": "proof"}
"""Words that are not the method there: the role of a colour, a setting of peers, the name of a prompt."""


def place(path: Path) -> tuple[str, ...]:
    return path.relative_to(ROOT).with_suffix("").parts


def upwards(here: tuple[str, ...], text: str) -> Iterator[str]:
    if here[-1] in TRAINERS:
        return
    for there in imports(text):
        if there and there[0] in LEVEL and LEVEL[there[0]] > LEVEL[here[0]]:
            yield f"{'/'.join(here)} imports {'.'.join(there)}, which is above it"


def strangers(here: tuple[str, ...], text: str) -> Iterator[str]:
    """Methods that a method imports; what begins with an underscore is shared."""
    if here[0] != "methods" or len(here) < 3 or here[2].startswith("_") or here[-1] in TRAINERS:
        return
    for there in imports(text):
        if there and there[0] == "methods" and len(there) > 2 and tuple(there[1:3]) != here[1:3] and there[2][0] != "_":
            yield f"{'/'.join(here)} imports another method, {'.'.join(there)}; use resources.build"


def named(text: str) -> Iterator[str]:
    """Methods' names in quotes, docstrings left out."""
    tree = ast.parse(text)
    quiet = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    verbs = {path.stem for path in (ROOT / "decoding").glob("*.py")}
    known = {*methods.names()} - verbs - {*GenerationArguments.__dataclass_fields__}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in quiet:
            yield from known & {node.value}


def test_every_room_has_a_layer_and_is_in_the_picture() -> None:
    rooms = {path.relative_to(ROOT).parts[0] for path in sources()}
    assert rooms == set(LEVEL) - {"errors"}, "errors is a file"
    drawn = picture()
    assert all(f">{room}</text>" in drawn for room in rooms) and "cli imports decoding" in drawn


@pytest.mark.parametrize("rule", [upwards, strangers])
def test_imports(rule: object) -> None:
    assert callable(rule)
    assert [fault for path in sources() for fault in rule(place(path), path.read_text("utf-8"))] == []


def test_the_rules_of_imports_see_faults() -> None:
    """Each rule is seen failing."""
    up = "def late():\n    from unspool.decoding.model import Model\n"
    assert list(upwards(("engine", "tree"), up)) and not list(upwards(("cli", "bench"), up))
    other = "from unspool.methods.drafters.suffix import Suffix\n"
    assert list(strangers(("methods", "drafters", "rasd"), other))
    assert not list(strangers(("methods", "drafters", "suffix"), other))
    assert not list(strangers(("methods", "drafters", "rasd"), "from unspool import UnspoolError\n"))
    assert not list(strangers(("methods", "drafters", "rasd"), other.replace("suffix", "_datastore", 1)))
    assert list(named('x = "suffix"')) == ["suffix"] and not list(named('"""suffix"""'))
    annotation = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from unspool.decoding.model import Model\n"
    assert not list(upwards(("engine", "tree"), annotation))


def test_a_method_is_named_like_its_file() -> None:
    for name in methods.names():
        module = methods.module_of(name)
        if not module.startswith("unspool."):
            continue
        assert module.split(".")[-1] == name
        spec = importlib.util.find_spec(module)
        assert spec is not None and spec.origin is not None
        assert "\nMETHOD = Method(" in Path(spec.origin).read_text("utf-8"), name


def test_files_are_small() -> None:
    long = {
        "/".join(place(path)): lines
        for path in sources()
        if (lines := len(path.read_text("utf-8").splitlines()))
        > (
            METHOD_LINES
            if len(place(path)) > 2 and place(path)[0] == "methods" and place(path)[-1] not in TRAINERS
            else CORE_LINES
        )
    }
    assert long == {}


INSTRUMENTS = ("proof", "bench", "report", "reproduce", "conformance", "trace", "cli", "integrations", "decoding")


def test_no_instrument_names_a_method() -> None:
    found = {
        "/".join(place(path)): sorted(names)
        for path in sources()
        if (room := place(path)[0]) in INSTRUMENTS
        and (names := {name for name in named(path.read_text("utf-8")) if HOMONYMS.get(name) != room})
    }
    assert found == {}


def test_only_training_loads_trainers() -> None:
    code = (
        "import sys\n"
        "from unspool import methods\n"
        "rows = methods.methods().values()\n"
        "trainers = [methods.module_of(row.name) + row.trainer for row in rows if row.trainer]\n"
        "assert len(trainers) > 3 and not set(trainers) & set(sys.modules), trainers\n"
        "methods.trainer(methods.find('learn2pd', methods.KINDS['unmask']))\n"
        "assert len(set(trainers) & set(sys.modules)) == 1"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_look_up_loads_little() -> None:
    code = (
        "import sys, unspool\n"
        "def ours(): return [m for m in sys.modules if m.startswith('unspool.')]\n"
        "assert not [m for m in ours() if m.startswith('unspool.methods')], ours()\n"
        "before = len(ours())\n"
        "from unspool import methods\n"
        "methods.names()\n"
        "assert not [m for m in ours() if m.count('.') > 2], ours()\n"
        "from unspool.engine.method import DRAFTER\n"
        "methods.find('token_recycling', DRAFTER)\n"
        "print(len(ours()))\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(re.findall(r"\d+", shown)[-1]) < 15
