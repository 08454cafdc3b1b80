"""Identifies models by content: the SHA-256 of all bytes of their files, stored so that each file is read only once.

Size and modification time do not identify content: archives, images and package stores set equal times. The stored hash
is therefore also keyed by inode and ctime, which no user can set on POSIX systems. That clock ticks slowly, so a hash
is only stored if the file had not changed for seconds when it was read.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from unspool.errors import UnspoolError
from unspool.storage import cache as store

_SETTLED_SECONDS = 2.0

_kept: dict[Path, dict[str, Any]] = {}  # for this process; the cache may be read-only or full


def of_file(path: Path, check: Callable[[Path], object]) -> str:
    """SHA-256 of a single-file model, lower-case hex. ``check`` is called when the file is read, and may raise."""
    return _sums(path, {path.name: path}, check)[path.name]


def of_directory(path: Path, files: Iterable[Path]) -> str:
    """One SHA-256 over the names and contents of a model's files."""
    digest = hashlib.sha256()
    named = {file.relative_to(path).as_posix(): file for file in sorted(files)}
    for name, one in _sums(path, named, lambda file: None).items():
        digest.update(f"{name}\0{one}\0".encode())
    return digest.hexdigest()


def loaded(key: str, settings: Mapping[str, str]) -> str:
    """A model as it runs: the key of its content, the backend and the weight format."""
    return f"{key} {settings['backend']} {settings['weights']}"


def _sums(model: Path, files: Mapping[str, Path], check: Callable[[Path], object]) -> dict[str, str]:
    record = store.hashes_dir() / f"{hashlib.sha256(str(model.resolve()).encode()).hexdigest()}.json"
    known = _kept.get(record) or _remembered(record)
    now = {name: known.get(name) for name in files}
    for name, file in files.items():
        try:
            stamp = _stamp(file)
            if not _holds(now[name], stamp):
                check(file)
                start = time.time()
                now[name] = {"sha256": store.sha256_of(file), "stamp": stamp, "read": start}
        except OSError as error:
            raise UnspoolError(f"cannot read {file}: {error.strerror or error}") from error
    if now != known:
        _kept[record] = now
        _remember(record, now)
    return {name: str(fact["sha256"]) for name, fact in now.items() if fact}


def _holds(fact: Any, stamp: list[int]) -> bool:
    try:
        return bool(
            fact["stamp"] == stamp and fact["read"] - max(stamp[1:3]) / 1e9 > _SETTLED_SECONDS and fact["sha256"]
        )
    except (KeyError, TypeError):  # none, or in another format
        return False


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev]


def _remembered(record: Path) -> dict[str, Any]:
    try:
        known = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none, or damaged: the files are read again
        return {}
    return known if isinstance(known, dict) else {}


def _remember(record: Path, known: dict[str, Any]) -> None:
    try:
        with store.atomic_file(record) as file:
            file.write_text(json.dumps(known), encoding="utf-8")
    except (OSError, UnspoolError):
        return  # the cache cannot be written: loading does not need it, and this process keeps it
