"""What a long command has done so far, on disk, so that the same command goes on after an interruption.

A file of JSON lines. The first says which command they belong to; a last line that was cut off is dropped.
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
        lines: what earlier runs of the command and this one have added, in order.
    """

    def __init__(self, path: Path | None, header: dict[str, Any], option: str) -> None:
        """Open or begin a file; without a path nothing is on disk.

        Args:
            header: all that decides what the lines say; plain data.
            option: of the command line, that names the file; for messages.

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
        # What follows the last line end was cut off, and is written over.
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
        """Keep a line; it is on disk when this returns."""
        self.lines.append(line)
        self._write(line)

    def close(self) -> None:
        """Leave the file where it is."""
        if self._file is not None:
            self._file.close()

    def remove(self) -> None:
        """The command has done its work; the file is not needed any more."""
        self.close()
        if self._path is not None:
            self._path.unlink()

    def _check(self, path: Path, found: dict[str, Any], header: dict[str, Any]) -> None:
        if found == header:
            return
        name = next(name for name in [*header, *found] if found.get(name) != header.get(name))
        raise UnspoolError(
            f"{path} holds the runs of another command ({name}: {_short(found.get(name))}, now "
            f"{_short(header.get(name))}); finish that one, give another {self._option}, or remove the file"
        )

    def _write(self, line: dict[str, Any]) -> None:
        if self._file is not None:
            try:
                self._file.write(json.dumps(line) + "\n")
                self._file.flush()
            except OSError as error:
                raise UnspoolError(
                    f"cannot write {self._path}: {error.strerror}; what was done so far is kept there, and the same "
                    "command goes on from it"
                ) from error


def check(path: Path, option: str) -> None:
    """Refuse a file that is no journal, before there is a header to compare.

    Raises:
        UnspoolError: as ``Journal`` does.
    """
    _parsed(path, _whole(path, option)[0], option)


def _whole(path: Path, option: str) -> tuple[bytes, bytes]:
    """The whole lines of a file, and the end of the last one; both are empty where there is none."""
    whole, end, rest = (path.read_bytes() if path.is_file() else b"").rpartition(b"\n")
    begin = b'{"header": '
    if not (whole or rest).startswith(begin[: len(whole or rest)]):
        raise _no_journal(path, option)
    return whole, end


def _no_journal(path: Path, option: str) -> UnspoolError:
    return UnspoolError(f"{path} holds no runs; give another {option}, or remove it")


def _parsed(path: Path, data: bytes, option: str) -> list[dict[str, Any]]:
    try:
        lines = [parse_json(line) for line in data.decode("utf-8").splitlines()]
    except ValueError as error:
        raise UnspoolError(f"{path} is damaged ({error}); give another {option}, or remove it") from error
    if not all(isinstance(line, dict) for line in lines):
        raise _no_journal(path, option)
    return lines


def _hold(file: TextIO, path: Path, option: str) -> None:
    """Keep other processes from adding to the file until this one closes it; Windows cannot be asked so."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UnspoolError(f"another process writes {path}; wait for it, or give another {option}") from error


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
