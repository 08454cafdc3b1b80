"""The progress of a long command on disk, so that the same command resumes after an interruption.

A file of JSON lines. The first line identifies the command; a truncated last line is dropped.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TextIO

from unspool.errors import UnspoolError
from unspool.storage.text_files import parse_json


class Journal:
    """An open journal.

    Attributes:
        lines: added by earlier runs of the command and by this one, in order.
    """

    def __init__(self, path: Path | None, header: dict[str, Any], option: str) -> None:
        """Open or create a file. Without a path, nothing is written.

        Args:
            header: everything that the lines depend on; plain data.
            option: the command-line option that names the file, for messages.

        Raises:
            UnspoolError: if the file is damaged or belongs to another command.
        """
        self.lines: list[dict[str, Any]] = []
        self._path = path
        self._option = option
        self._file = None
        if path is None:
            return
        header = json.loads(json.dumps(header))
        # What follows the last line end was truncated, and is overwritten.
        whole, end = _whole(path, option)
        first, *self.lines = _parsed(path, whole, option) or [{}]
        if first:
            self._check(path, first.get("header", {}), header)
        self._file = path.open("r+" if end else "w", encoding="utf-8")
        _hold(self._file, path, option)
        self._file.seek(len(whole + end))
        self._file.truncate()
        if not first:
            self._write({"header": header})

    def add(self, line: dict[str, Any]) -> None:
        """Add a line; it is on disk when this returns."""
        self.lines.append(line)
        self._write(line)

    def close(self) -> None:
        """Close the file without removing it."""
        if self._file is not None:
            self._file.close()

    def remove(self) -> None:
        """Remove the file once the command is complete."""
        self.close()
        if self._path is not None:
            self._path.unlink()

    def _check(self, path: Path, found: dict[str, Any], header: dict[str, Any]) -> None:
        if found == header:
            return
        name = next(name for name in [*header, *found] if found.get(name) != header.get(name))
        raise UnspoolError(
            f"{path} contains the runs of another command ({name}: {_short(found.get(name))}, now "
            f"{_short(header.get(name))}); finish that one, give another {self._option}, or remove the file"
        )

    def _write(self, line: dict[str, Any]) -> None:
        if self._file is not None:
            try:
                self._file.write(json.dumps(line) + "\n")
                self._file.flush()
            except OSError as error:
                raise UnspoolError(
                    f"cannot write {self._path}: {error.strerror}; it contains what was done so far, and the same "
                    "command resumes from it"
                ) from error


def check(path: Path, option: str) -> None:
    """Refuse a file that is not a journal, before there is a header to compare.

    Raises:
        UnspoolError: as ``Journal``.
    """
    _parsed(path, _whole(path, option)[0], option)


def _whole(path: Path, option: str) -> tuple[bytes, bytes]:
    """The complete lines of a file, and its truncated last line; both empty if there is no file."""
    whole, end, rest = (path.read_bytes() if path.is_file() else b"").rpartition(b"\n")
    begin = b'{"header": '
    if not (whole or rest).startswith(begin[: len(whole or rest)]):
        raise _no_journal(path, option)
    return whole, end


def _no_journal(path: Path, option: str) -> UnspoolError:
    return UnspoolError(f"{path} contains no runs; give another {option}, or remove it")


def _parsed(path: Path, data: bytes, option: str) -> list[dict[str, Any]]:
    try:
        lines = [parse_json(line) for line in data.decode("utf-8").splitlines()]
    except ValueError as error:
        raise UnspoolError(f"{path} is damaged ({error}); give another {option}, or remove it") from error
    if not all(isinstance(line, dict) for line in lines):
        raise _no_journal(path, option)
    return lines


def _hold(file: TextIO, path: Path, option: str) -> None:
    """Lock the file against other processes until this one closes it; not possible on Windows."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UnspoolError(f"another process is writing {path}; wait for it, or give another {option}") from error


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
