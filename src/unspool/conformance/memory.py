"""Checks of a memory: saved atomically; a file that is not its own is rejected by name and changes nothing."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from unspool import methods
from unspool.conformance import drafter
from unspool.conformance.check import CheckFailed, Row, require
from unspool.engine.contracts import Memory
from unspool.engine.options import GenerationOptions
from unspool.errors import UnspoolError

DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": lambda file: file.unlink(),
    "empty": lambda file: file.write_bytes(b""),
    "text": lambda file: file.write_bytes(b"hello"),
    "truncated": lambda file: file.write_bytes(file.read_bytes()[:-20]),
    "array": lambda file: file.write_text("[1, 2]"),
    "object": lambda file: file.write_text('{"a": 1}'),
    "not UTF-8": lambda file: file.write_bytes(b"\xff\xfe\x00"),
    "deep": lambda file: file.write_text("[" * 100_000),
}
"""What may have become of a file, by name."""


def check(memory: Memory, folder: Path) -> None:
    """Everything below.

    Args:
        memory: that has learned something.
        folder: empty, to write to.
    """
    require(isinstance(memory, Memory), "a memory has save, load and reset")
    damaged_files_are_refused(memory, folder)
    other_kinds_of_paths_are_refused(memory, folder)
    a_failed_save_leaves_the_old_file(memory, folder)
    a_changed_byte_is_our_error_or_none(memory, folder)


def damaged_files_are_refused(memory: Memory, folder: Path) -> None:
    """Each part of what was saved, damaged in each way: one error that names the file, and nothing is learned."""
    file, copy = folder / "memory", folder / "copy"
    memory.save(file)
    for part in _parts(file):
        for what, damage in DAMAGES.items():
            shutil.copytree(file, copy) if file.is_dir() else shutil.copy(file, copy)
            damage(copy / part.name if file.is_dir() else copy)
            _refused(memory, copy, what)
            _remove(copy)
    _remove(file)


def other_kinds_of_paths_are_refused(memory: Memory, folder: Path) -> None:
    """A directory is no file, and a file no directory."""
    file, other = folder / "memory", folder / "other"
    memory.save(file)
    other.write_bytes(b"x") if file.is_dir() else other.mkdir()
    _refused(memory, other, "another kind of path")
    _remove(other)
    _remove(file)


def a_failed_save_leaves_the_old_file(memory: Memory, folder: Path) -> None:
    """The disk ends in the middle of a file, and there is no such directory: what was there is as it was."""
    file = folder / "memory"
    memory.save(file)
    before = {part.name: part.read_bytes() for part in _parts(file)}
    target = folder / "new" if file.is_dir() else file  # a directory is never replaced
    failures: list[tuple[Path, int | None]] = [(folder / "no" / "memory", None)]
    if find_spec("resource"):  # Windows cannot limit files, so a full disk is not tried there
        failures.append((target, 8))
    for path, limit in failures:
        try:
            with _small_files(limit):
                memory.save(path)
        except UnspoolError as error:
            require(str(path.name) in str(error) or str(path.parent) in str(error), str(error))
        else:
            raise CheckFailed(f"a save to {path} that failed says nothing")
    require({part.name: part.read_bytes() for part in _parts(file)} == before, "the old file was changed")
    require(list(folder.iterdir()) == [file], "a part of a file was left")
    _remove(file)


def a_changed_byte_is_our_error_or_none(memory: Memory, folder: Path, count: int = 150) -> None:
    """``count`` single bits, each changed alone."""
    file, rng = folder / "memory", random.Random(0)
    memory.save(file)
    for part in _parts(file):
        whole = part.read_bytes()
        for at in rng.sample(range(len(whole)), min(count, len(whole))):
            part.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << rng.randrange(8)]) + whole[at + 1 :])
            try:
                memory.load(file)
            except UnspoolError as error:
                require(file.name in str(error), str(error))
        part.write_bytes(whole)
    memory.load(file)
    _remove(file)


def _refused(memory: Memory, path: Path, what: str) -> None:
    before = vars(memory).copy()
    try:
        memory.load(path)
    except UnspoolError as error:
        require(path.name in str(error), str(error))
        require(all(vars(memory)[name] is value for name, value in before.items()), f"{what}: the memory was changed")
    else:
        raise CheckFailed(f"a file that is {what} is loaded")


@contextmanager
def _small_files(limit: int | None) -> Iterator[None]:
    """Writing more than ``limit`` bytes to a file fails, as on a full disk."""
    if limit is None:
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _parts(file: Path) -> list[Path]:
    return sorted(file.iterdir()) if file.is_dir() else [file]


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def memories_are_saved_whole_or_refused(row: Row) -> None:
    """A drafter's memory is saved atomically; damaged files are rejected and change nothing."""
    toy = drafter.model()
    around = drafter.resources(toy)
    options, rule = GenerationOptions(max_new_tokens=25), methods.acceptance_rule(None, True, around)
    drafter.run(toy, [drafter.PROMPT], [drafter.made(row, around)], options, rule)
    require(around.memories or not row.memory, f"the row says that it learns {row.memory}, and there is no memory")
    for memory in around.memories.values():
        with TemporaryDirectory() as folder:
            check(memory, Path(folder))


CHECKS = (memories_are_saved_whole_or_refused,)
