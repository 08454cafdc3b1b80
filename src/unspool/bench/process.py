"""The driver's side of a contestant's process."""

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

_SETTLE_SECONDS = 0.3  # threads of the previous contestant may still spin briefly
_GRACE_SECONDS = 5


class ContestantError(Exception):
    """A contestant cannot start or continue, for the reason in the message."""


class Worker:
    """A contestant in its own process, idle between requests.

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
            start_new_session=True,  # Ctrl-C goes only to the driver, which ends its workers itself
        )
        try:
            answer = self.ask("load", contestant=asdict(contestant), settings=asdict(settings))
        except BaseException:
            self.close()
            raise
        self.settings: dict[str, str] = answer["settings"]
        self.memory = 0

    def decode(self, task: Task) -> Decoded:
        """Decode one prompt; ``memory`` is the process's peak memory from then on, in bytes."""
        time.sleep(_SETTLE_SECONDS)
        answer = self.ask("decode", **asdict(task))
        self.memory = answer["memory"]
        return Decoded(**answer["decoded"])

    def reset(self) -> None:
        """Discard everything learned from earlier prompts."""
        self.ask("reset")

    def ask(self, what: str, **arguments: Any) -> dict[str, Any]:
        """Send a request of ``worker.Server`` and wait for the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = ""
        try:
            self._process.stdin.write(json.dumps({"ask": what, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            pass  # dead: reported below, with its last line of output
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
                # A request may still be buffered that is never read.
                with suppress(BrokenPipeError):
                    stream.close()
        self._log.close()
