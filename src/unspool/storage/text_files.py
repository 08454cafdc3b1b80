"""Checks files to read or to write before any work; a bad one is refused in one line that names it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unspool.errors import UnspoolError


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, without its byte order mark.

    Raises:
        UnspoolError: if the file cannot be read, is not UTF-8, or contains only white space.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UnspoolError(f"cannot read {path}: {error.strerror or error}") from error
    text = decoded(data, str(path))
    if not text.strip():
        raise UnspoolError(f"{path} is empty; name a file with content")
    return text


def decoded(data: bytes, what: str) -> str:
    """UTF-8 decoded to text, without a byte order mark.

    Raises:
        UnspoolError: if it is not UTF-8; the message names it by ``what``.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnspoolError(f"{what} is not UTF-8 (byte {error.start}: {error.reason}); convert it") from error


def parse_json(text: str) -> Any:
    """Parse JSON that a user or unspool wrote.

    Raises:
        ValueError: with the fault. Duplicate keys, of which one value would be lost, and nesting too deep for Python
            are faults too.
    """
    return _parsed(text, unique)


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An ``object_pairs_hook`` for ``json`` that refuses duplicate keys.

    Raises:
        ValueError: if a key appears twice.
    """
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} appears twice")
    return made


def _parsed(text: str, of_pairs: Callable[[list[tuple[str, Any]]], dict[str, Any]] | None) -> Any:
    try:
        return json.loads(text, object_pairs_hook=of_pairs)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}" if error.lineno > 1 else f"column {error.colno}"
        raise ValueError(f"not JSON ({error.msg} at {where})") from error
    except RecursionError as error:
        raise ValueError("not JSON that can be read (it is nested too deeply)") from error


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file that another library reads as well, parsed as that library does.

    The last value of a duplicate key counts; a byte order mark is a fault.

    Raises:
        UnspoolError: if the file cannot be read or contains something else.
    """
    try:
        data = _parsed(path.read_text(encoding="utf-8"), None)
    except OSError as error:
        raise UnspoolError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:  # not UTF-8, or not JSON
        raise UnspoolError(f"{path} is damaged: {error}; fetch it again") from error
    if not isinstance(data, dict):
        raise UnspoolError(f"{path} is damaged: it is not a JSON object; fetch it again")
    return data


def reason(error: BaseException) -> str:
    """The message of another library's error in one line, with its type if the message alone says little."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    telling = isinstance(error, OSError | ValueError | RuntimeError) and not isinstance(error, UnicodeError)
    return lines[0] if telling else f"{type(error).__name__}: {lines[0]}"


def same_file(one: Path, other: Path) -> bool:
    """Whether two paths lead to the same file, which need not exist."""
    return os.path.realpath(one) == os.path.realpath(other)


def check_file(path: Path, *others: Path | None) -> None:
    """Refuse a path that cannot be written, or that would replace another file of the same call.

    Args:
        others: other files that the call reads or writes; None if not given.

    Raises:
        UnspoolError: says what to do.
    """
    for other in others:
        if other is not None and same_file(path, other):
            raise UnspoolError(
                f"cannot write {path}: it would replace {other}, which the call needs; give another file"
            )
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:  # a link to itself, a name that is too long, a folder without permission
        raise UnspoolError(f"cannot write {path}: {error.strerror}; give another file") from error
    if path.is_dir():
        raise UnspoolError(f"cannot write {path}: it is a directory; give the name of a file")
    if path.exists() and not path.is_file():
        raise UnspoolError(f"cannot write {path}: it is a device; give the name of a file")
    if not (folder := path.absolute().parent).is_dir():
        raise UnspoolError(f"cannot write {path}: there is no directory {folder}; make it first")
    # Replacing a file needs write permission for its directory.
    for place in (folder, path):
        if place.exists() and not os.access(place, os.W_OK):
            raise UnspoolError(f"cannot write {path}: no permission to write to {place}; give another file")


def check_directory(path: Path) -> None:
    """Refuse a directory that cannot be created or, if it exists, written.

    Raises:
        UnspoolError: says what to do.
    """
    if path.is_symlink() and not path.exists():
        raise UnspoolError(f"cannot make {path}: it is a broken link; remove it")
    place = path.absolute()
    if place.exists() and not place.is_dir():
        raise UnspoolError(f"cannot write to {path}: it is a file; name a directory")
    if not place.exists() and not (place := place.parent).is_dir():
        raise UnspoolError(f"cannot make {path}: there is no directory {place}; make it first")
    if not os.access(place, os.W_OK):
        raise UnspoolError(f"cannot write to {place}: no permission; name another directory")
