"""The driver's end of a contestant's process."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from unspool.bench.contestants import Contestant
from unspool.bench.engines import Decoded, Settings, Task

_SETTLE_SECONDS = 0.3  # threads of the contestant before may still spin for a moment
_GRACE_SECONDS = 5


class ContestantError(Exception):
    """A contestant could not start or go on; the message says why."""


class Worker:
    """A contestant in a process of its own, which idles until it is asked.

    Raises:
        ContestantError: by every method, if the contestant reports an error or its process dies.
    """

    def __init__(self, contestant: Contestant, settings: Settings) -> None:
        if contestant.missing:
            raise ContestantError(contestant.missing)
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "unspool.bench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is the driver's, which ends its workers itself
        )
        try:
            answer = self.ask("load", contestant=asdict(contestant), settings=asdict(settings))
        except BaseException:
            self.close()
            raise
        self.settings: dict[str, str] = answer["settings"]
        self.memory = 0

    def decode(self, task: Task) -> Decoded:
        """Decode one prompt; ``memory`` is the peak of the process from then on, in bytes."""
        time.sleep(_SETTLE_SECONDS)
        answer = self.ask("decode", **asdict(task))
        self.memory = answer["memory"]
        return Decoded(**answer["decoded"])

    def reset(self) -> None:
        """Forget what was learned from earlier prompts."""
        self.ask("reset")

    def ask(self, what: str, **arguments: Any) -> dict[str, Any]:
        """Send one request of ``worker.Server`` and wait for its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = ""
        try:
            self._process.stdin.write(json.dumps({"ask": what, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            pass  # dead: said below, with its last words
        if not line:
            code = self._process.wait()
            self._log.seek(0)
            last = (self._log.read().strip().splitlines() or ["no message"])[-1]
            raise ContestantError(f"its process ended with code {code}: {last}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ContestantError(answer["error"])
        return answer

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                # A request may still be buffered that nobody reads any more.
                with suppress(BrokenPipeError):
                    stream.close()
        self._log.close()
