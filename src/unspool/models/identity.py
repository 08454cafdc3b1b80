"""Models are known by their content: the SHA-256 of all bytes of their files, remembered so that they are read once.

Size and modification time do not stand for content: archives, images and stores set all times alike. What the memory
of a file is kept under besides them, its inode and the time of its last change (ctime), no user sets on POSIX systems.
That clock ticks slowly, so the memory holds only for files that had not changed for seconds when they were read.
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

_kept: dict[Path, dict[str, Any]] = {}  # of this process; the cache may be read-only or full


def of_file(path: Path, check: Callable[[Path], object]) -> str:
    """SHA-256 of a model in one file, lower-case hex; ``check`` is called when it is read, and may raise."""
    return _sums(path, {path.name: path}, check)[path.name]


def of_directory(path: Path, files: Iterable[Path]) -> str:
    """One SHA-256 of the names and the contents of a model's files."""
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
    except (KeyError, TypeError):  # none, or of another form
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
        return  # a cache that cannot be written: nothing that loading needs, and this process keeps it
