"""The cache directory: where models, conversions and calibrations are stored, and how they are written atomically.

A file or directory appears under its final name only when it is complete. Its writer holds the lock of that name, so
that two processes never do the same work twice.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unspool.errors import UnspoolError

_TEMPORARY = re.compile(r"\.(?P<host>[0-9a-f]{8})\.(?P<pid>\d+)\.[0-9a-f]{8}\.tmp$")
_ABANDONED_SECONDS = 24 * 3600
_LONG_SECONDS, _LARGE = 2.0, 100_000_000
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


def root() -> Path:
    """The cache directory: ``UNSPOOL_CACHE``, or the system's user cache directory."""
    chosen = os.environ.get("UNSPOOL_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("unspool"))


def models_dir() -> Path:
    """Verified GGUF files."""
    return root() / "models"


def downloads_dir() -> Path:
    """Unfinished downloads, kept for resuming."""
    return root() / "downloads"


def converted_dir() -> Path:
    """Converted models: ``<content key>/<weight format and version>/``."""
    return root() / "converted"


def calibration_dir() -> Path:
    """Measured cost curves."""
    return root() / "calibration"


def hashes_dir() -> Path:
    """Stored SHA-256 sums of files outside the cache."""
    return root() / "hashes"


def say(message: str) -> None:
    """Print one line for the user on stderr."""
    print(message, file=sys.stderr, flush=True)


@contextmanager
def lock(name: str, waiting: str) -> Iterator[None]:
    """Hold the lock ``name`` of the cache, across processes. It is released even if the process is killed.

    Names in use: ``download-<model>``, ``convert-<content key>`` and ``calibrate-<curve>``.

    Args:
        waiting: printed on stderr if another process holds the lock.
    """
    from filelock import FileLock, Timeout

    path = root() / "locks" / f"{re.sub(r'[^A-Za-z0-9._-]', '_', name)}.lock"
    make_directory(path.parent)
    held = FileLock(path)
    try:
        held.acquire(timeout=0)
    except Timeout:
        say(waiting)
        held.acquire()
    try:
        yield
    finally:
        held.release()


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path to write. The file gets the name ``path`` only if the block raises no exception.

    Replaces an existing file. After any exception, Ctrl-C included, nothing is left.

    Raises:
        UnspoolError: if the disk is full or the cache cannot be written.
    """
    with _temporary(path) as temporary:
        yield temporary
        publish(temporary, path)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """``atomic_file`` for a directory: yields an empty temporary one. ``path`` must not exist yet.

    Raises:
        FileExistsError: if ``path`` exists; check for it after taking the lock.
        UnspoolError: if the disk is full or the cache cannot be written.
    """
    if path.exists():
        raise FileExistsError(path)
    with temporary_directory(path) as temporary:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _sync(file)
        temporary.rename(path)
        _sync_entries(path.parent)


def publish(file: Path, path: Path) -> None:
    """Give a complete file of the cache its final name, replacing an existing file."""
    make_directory(path.parent)
    _sync(file)
    file.replace(path)
    _sync_entries(path.parent)


@contextmanager
def temporary_directory(path: Path) -> Iterator[Path]:
    """An empty directory next to ``path``, removed after the block."""
    with _temporary(path) as temporary:
        temporary.mkdir()
        yield temporary


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    make_directory(path.parent)
    sweep(path.parent)
    temporary = path.parent / f"{path.name}.{_host()}.{os.getpid()}.{secrets.token_hex(4)}.tmp"
    try:
        yield temporary
    except Exception as error:
        # Checked before the temporary is removed and its space is free again.
        if is_full(error, path.parent):
            raise full_disk(path.parent) from error
        raise
    finally:
        remove(temporary)


def sweep(directory: Path) -> None:
    """Remove temporaries in ``directory`` whose process was killed.

    Those of another machine that shares the cache are removed after a day without changes.
    """
    for path in directory.glob("*.tmp"):
        match = _TEMPORARY.search(path.name)
        if match and _abandoned(path, match["host"], int(match["pid"])):
            try:
                remove(path)
            except OSError:  # another process sweeps too, or a child of the killed one still writes: next time
                continue


def is_final(path: Path) -> bool:
    """Whether an entry of the cache is complete, not a temporary in use."""
    return not _TEMPORARY.search(path.name)


def _abandoned(path: Path, host: str, pid: int) -> bool:
    if host == _host():
        import psutil

        if not psutil.pid_exists(pid):
            return True
    try:
        return time.time() - path.stat().st_mtime > _ABANDONED_SECONDS
    except FileNotFoundError:
        return False  # its writer has just finished


def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def make_directory(path: Path) -> None:
    """Create a directory of the cache.

    Raises:
        UnspoolError: if it cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in _FULL:
            raise full_disk(path) from error
        raise UnspoolError(
            f"cannot write to the cache {path}: {error.strerror}; set UNSPOOL_CACHE to a directory that you can write"
        ) from error
    if not os.access(path, os.W_OK):
        raise UnspoolError(f"cannot write to the cache {path}; set UNSPOOL_CACHE to a directory that you can write")


def require_space(path: Path, needed: int) -> None:
    """Check that the disk of ``path`` has ``needed`` bytes free.

    Raises:
        UnspoolError: if it does not.
    """
    free = _free(path)
    if free < needed:
        raise UnspoolError(
            f"not enough disk space in {path}: {format_bytes(needed)} needed, {format_bytes(free)} free; "
            "free some, or set UNSPOOL_CACHE to a directory on a larger disk"
        )


def full_disk(path: Path) -> UnspoolError:
    """The error for a disk that filled up during a write."""
    return UnspoolError(
        f"the disk of {path} is full ({format_bytes(_free(path))} free); no half-written file was kept; "
        "free some space, or set UNSPOOL_CACHE to a directory on a larger disk"
    )


def is_full(error: Exception, directory: Path) -> bool:
    """Whether ``error`` was raised because the disk of ``directory`` is full."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    if isinstance(error, UnspoolError):
        return isinstance(error.__cause__, Exception) and is_full(error.__cause__, directory)
    # Native writers report a full disk by various exceptions.
    return _free(directory) < 1 << 20


def _free(path: Path) -> int:
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def remove(path: Path) -> int:
    """Remove a file or directory, if it exists; returns its size in bytes."""
    freed = size_on_disk(path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    return freed


def size_on_disk(path: Path) -> int:
    """Size in bytes of a file, or of all files below a directory; 0 if there is none."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size if path.exists() else 0


def format_bytes(n: int) -> str:
    """``n`` bytes as readable text, in decimal units."""
    from rich.filesize import decimal

    return decimal(n)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, lower-case hex. Prints a message if that takes more than two seconds."""
    digest, start, size = hashlib.sha256(), time.monotonic(), path.stat().st_size
    said = size < _LARGE
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            if not said and time.monotonic() - start > _LONG_SECONDS:
                said = True
                say(f"reading all of {path.name} ({format_bytes(size)}) to identify it by its content")
    return digest.hexdigest()


def _sync(file: Path) -> None:
    with file.open("r+b") as handle:
        os.fsync(handle.fileno())


def _sync_entries(directory: Path) -> None:
    # Without this, a power failure can lose the rename. Windows cannot open directories and does not need it.
    if os.name == "nt":
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
