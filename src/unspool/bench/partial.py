"""Progress of a benchmark, in a journal next to its result.

The journal's first line records when and where the benchmark began; one line per finished run follows.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from unspool.bench.result import Run
from unspool.storage.journal import Journal


class Partial:
    """The finished runs of one benchmark.

    Attributes:
        runs: finished runs, in order.
        memory: peak resident bytes by contestant, over all sessions.
        about: of the first session; ``"resumed_after_runs"`` records where it was interrupted.
    """

    def __init__(self, result: Path | None, header: dict[str, Any], about: dict[str, Any]) -> None:
        """Open or create the journal of ``result``; without a result nothing is written.

        Args:
            header: everything that the measurement depends on; plain data.

        Raises:
            UnspoolError: if the file belongs to another command.
        """
        self.runs: list[Run] = []
        self.memory: dict[str, int] = {}
        self.about = about
        path = None if result is None else result.with_name(f"{result.name}.partial.jsonl")
        self._journal = Journal(path, header, "--json")
        for line in self._journal.lines:
            self._take(line)
        if not self._journal.lines:
            self._add({"about": about})
        elif self.runs:
            self._add({"resumed": len(self.runs)})

    def add(self, run: Run, memory: int) -> None:
        """Store a finished run, and its contestant's peak memory in bytes."""
        self._add({"run": asdict(run), "memory": memory})

    def close(self) -> None:
        """Close the file without removing it."""
        self._journal.close()

    def remove(self) -> None:
        """Remove the file once the result is written."""
        self._journal.remove()

    def _add(self, line: dict[str, Any]) -> None:
        self._take(line)
        self._journal.add(line)

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
