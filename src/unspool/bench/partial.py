"""What a benchmark has done so far, on disk beside its result, so that the same command goes on after an interruption.

The first line of the file says which command it belongs to, the second when and where it began; then comes a line for
each finished run. A last line that was cut off is dropped.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from unspool.bench.result import Run
from unspool.errors import UnspoolError


class Partial:
    """The file of one benchmark.

    Attributes:
        runs: finished runs, in order.
        memory: peak resident bytes by contestant, over all sessions.
        about: of the first session; ``"resumed_after_runs"`` tells when it was interrupted.
    """

    def __init__(self, result: Path | None, header: dict[str, Any], about: dict[str, Any]) -> None:
        """Open or begin the file of ``result``; without a result nothing is on disk.

        Args:
            header: all that decides what is measured; plain data.

        Raises:
            UnspoolError: if the file belongs to another command.
        """
        self.runs: list[Run] = []
        self.memory: dict[str, int] = {}
        self.about = about
        self._file: TextIO | None = None
        if result is not None:
            self.path = result.with_name(f"{result.name}.partial.jsonl")
            self._open(header)

    def _open(self, header: dict[str, Any]) -> None:
        header = json.loads(json.dumps(header))
        # What follows the last line end was cut off, and is written over.
        whole, end, _ = (self.path.read_bytes() if self.path.is_file() else b"").rpartition(b"\n")
        lines = self._lines(whole)
        if lines:
            self._check(lines[0].get("header", {}), header)
        for line in lines[1:]:
            self._take(line)
        self._file = self.path.open("r+" if end else "w", encoding="utf-8")
        self._file.seek(len(whole + end))
        self._file.truncate()
        if not lines:
            self._write({"header": header})
        if len(lines) < 2:
            self._write({"about": self.about})
        elif self.runs:
            line = {"resumed": len(self.runs)}
            self._take(line)
            self._write(line)

    def add(self, run: Run, memory: int) -> None:
        """Keep a finished run, and the peak of its contestant in bytes."""
        line = {"run": asdict(run), "memory": memory}
        self._take(line)
        self._write(line)

    def close(self) -> None:
        """Leave the file where it is."""
        if self._file is not None:
            self._file.close()

    def remove(self) -> None:
        """The result is written; the file is not needed any more."""
        if self._file is not None:
            self._file.close()
            self.path.unlink()

    def _lines(self, data: bytes) -> list[dict[str, Any]]:
        try:
            lines = [json.loads(line) for line in data.splitlines()]
        except ValueError as error:
            raise UnspoolError(f"{self.path} is damaged ({error}); remove it and start anew") from error
        if not all(isinstance(line, dict) for line in lines):
            raise UnspoolError(f"{self.path} holds no runs of a benchmark; give another --json, or remove it")
        return lines

    def _check(self, found: dict[str, Any], header: dict[str, Any]) -> None:
        if found == header:
            return
        name = next(name for name in [*header, *found] if found.get(name) != header.get(name))
        raise UnspoolError(
            f"{self.path} holds the unfinished runs of another command ({name}: {_short(found.get(name))}, "
            f"now {_short(header.get(name))}); finish that one, give another --json, or remove the file"
        )

    def _take(self, line: dict[str, Any]) -> None:
        if "about" in line:
            self.about = line["about"]
        elif "resumed" in line:
            earlier = self.about.get("resumed_after_runs", [])
            self.about = {**self.about, "resumed_after_runs": [*earlier, line["resumed"]]}
        else:
            run = Run(**line["run"])
            self.runs.append(run)
            self.memory[run.contestant] = max(line["memory"], self.memory.get(run.contestant, 0))

    def _write(self, line: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
