"""A contestant's process: loads one engine, then answers requests, one JSON line in and one out.

Started by ``process.Worker`` as ``python -m unspool.bench.worker``; ends when its standard input does.
"""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unspool.bench.contestants import PEERS, Contestant
from unspool.bench.engines import Engine, Settings, Task, Unspool
from unspool.errors import UnspoolError


class Server:
    """Answers the requests of one benchmark."""

    def __init__(self) -> None:
        self._engine: Engine | None = None

    @property
    def engine(self) -> Engine:
        assert self._engine is not None, "the first request is load"
        return self._engine

    @property
    def unspool(self) -> Unspool:
        assert isinstance(self.engine, Unspool), "only unspool's own are asked this"
        return self.engine

    def load(self, contestant: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
        self._engine = load(Contestant(**contestant), Settings(**settings))
        return {"settings": self._engine.settings}

    def limits(self) -> dict[str, Any]:
        """The ids that end a text, and the maximum text length."""
        model = self.unspool.model
        return {"eos": sorted(model.eos_token_ids), "max_length": model.language_model.max_length}

    def curve(self, fresh: bool) -> dict[str, Any]:
        return self.unspool.curve(fresh)

    def decode(self, **task: Any) -> dict[str, Any]:
        decoded = self.engine.decode(Task(**task))
        return {"decoded": asdict(decoded), "memory": peak_bytes()}

    def reset(self) -> dict[str, Any]:
        self.engine.reset()
        return {}

    def judge(
        self,
        cases: list[dict[str, list[int]]],
        runs: dict[str, list[list[int]]],
        temperature: float,
        seed: int,
        max_new_tokens: int,
        eos: list[int],
    ) -> dict[str, Any]:
        """The verdicts on each contestant's differences from plain decoding."""
        from unspool.proof.case import Case
        from unspool.proof.identity import judge

        found = judge(
            self.unspool.model.language_model,
            # Margins are part of a proof's report; the verdict does not depend on them.
            [
                Case(number, case["ids"], seed, case["output"], [0.0] * len(case["output"]))
                for number, case in enumerate(cases)
            ],
            runs,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            eos=frozenset(eos),
        )
        return {name: [one.verdict for case in made for one in case] for name, made in found.items()}


def load(contestant: Contestant, settings: Settings) -> Engine:
    """The engine of a contestant."""
    if contestant.method is not None and contestant.weights is not None:
        return Unspool(settings, contestant.method, contestant.weights)
    from unspool.bench.peers import LOADERS

    return LOADERS[PEERS[contestant.peer].module](settings, contestant.num_assistant_tokens)


def peak_bytes() -> int:
    """Peak resident memory of this process; the current one if the kernel does not report the peak."""
    status = Path("/proc/self/status")
    match = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.is_file() else None
    if match:
        return int(match[1]) * 1024
    import psutil

    memory = psutil.Process().memory_info()
    return int(getattr(memory, "peak_wset", memory.rss))


def serve() -> None:
    """Answer requests until standard input closes."""
    # Libraries print to stdout, so the answers have their own channel.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    server = Server()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(server, request.pop("ask"))(**request)
        except UnspoolError as error:
            answer = {"error": str(error)}
        except Exception as error:  # reported by the driver, which decides how to continue
            # The last line: native libraries begin their messages with source locations.
            reason = (str(error).strip() or "no message").splitlines()[-1].strip()
            answer = {"error": f"{type(error).__name__}: {reason}"}
        channel.write(json.dumps(answer) + "\n")
        channel.flush()


if __name__ == "__main__":
    serve()
