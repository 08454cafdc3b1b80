"""Decoding speed of unspool and its peers on the same prompts, interleaved prompt by prompt in one run.

See ``speed_report.METHOD`` for how speed is defined and ``contestants`` for who takes part.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

import common
import psutil
import speed_report
from contestants import CONTESTANTS, PLAIN, Contestant, Emissions, Settings, serve
from speed_report import Run

from unspool.backends import prepare
from unspool.backends.resolve import resolve
from unspool.backends.tokenizer import Tokenizer
from unspool.errors import UnknownNameError, UnspoolError

_WARM_UP = "Explain in a few sentences how a rainbow forms."
_WARM_UP_TOKENS = 32
_SETTLE_SECONDS = 0.3  # threads of the contestant before may still spin for a moment
_OURS = "unspool"


class WorkerError(Exception):
    """A contestant could not go on; the message is its own."""


class Worker:
    """A contestant in its own process."""

    def __init__(self, contestant: Contestant) -> None:
        self.name = contestant.name
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), "--worker", contestant.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is the driver's, which ends its workers itself
        )

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send one request and wait for its answer.

        Raises:
            WorkerError: if the worker reports an error or dies.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = ""
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            pass  # dead: said below, with its last words
        if not line:
            code = self._process.wait()
            self._log.seek(0)
            last = (self._log.read().strip().splitlines() or ["no message"])[-1]
            raise WorkerError(f"its process ended with code {code}: {last}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


class Benchmark:
    """The workers of one run and what they have done so far."""

    def __init__(self, names: Sequence[str]) -> None:
        self.status = dict.fromkeys(CONTESTANTS, "left out") | dict.fromkeys(names, "ok")
        self.workers: dict[str, Worker] = {}
        self.runs: dict[str, list[Run]] = {}
        self.settings: dict[str, dict[str, str]] = {}
        self.eos: list[int] = []

    def start(self, settings: Settings) -> None:
        for name in [name for name, state in self.status.items() if state == "ok"]:
            contestant = CONTESTANTS[name]
            if not contestant.installed:
                self.status[name] = f"not installed (`{contestant.install}`)"
                continue
            common.say(f"loading {contestant.label}")
            self.workers[name] = Worker(contestant)
            answer = self.ask(name, asdict(settings))
            if answer is not None:
                self.settings[name] = answer["settings"]
                self.eos = answer.get("eos", self.eos)
                self.runs[name] = []

    def ask(self, name: str, request: dict[str, Any]) -> dict[str, Any] | None:
        """A worker's answer. A peer that fails is out of the run and its row says why; unspool must not fail."""
        try:
            return self.workers[name].ask(request)
        except WorkerError as error:
            if name.startswith(_OURS):
                raise UnspoolError(f"{name}: {error}") from error
            common.say(f"{name} failed: {error}")
            self.status[name] = f"failed: {error}"
            self.workers.pop(name).stop()
            self.runs.pop(name, None)
            return None

    def decode(self, name: str, ids: list[int], max_new_tokens: int) -> Emissions | None:
        time.sleep(_SETTLE_SECONDS)
        answer = self.ask(name, {"ids": ids, "max_new_tokens": max_new_tokens, "eos": self.eos})
        return None if answer is None else Emissions(**answer)

    def progress(self) -> str:
        medians = {name: speed_report.median_speed(runs) for name, runs in self.runs.items()}
        return "  ".join(f"{name} {common.number(speed, 1)}" for name, speed in medians.items())

    def stop(self) -> None:
        for worker in self.workers.values():
            worker.stop()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data", type=Path, help="Spec-Bench's question.jsonl, or a file of the same form")
    parser.add_argument("-m", "--model", default="qwen2.5-coder-0.5b", help="as `unspool generate -m`")
    parser.add_argument("--per-category", type=int, default=5, help="prompts of each category")
    parser.add_argument("--max-new-tokens", type=int, default=96, help="limit of each answer")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of prompts and of the contestants' order")
    parser.add_argument("--threads", type=int, help="for all contestants; by default the physical cores")
    parser.add_argument("--contestants", help=f"comma-separated, of: {', '.join(CONTESTANTS)}; by default all")
    parser.add_argument("--genai-model", help="directory exported for OpenVINO GenAI; by default exported here")
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--markdown", type=Path, help="file for the tables")
    parser.add_argument("--worker", choices=CONTESTANTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker is None:
        if arguments.data is None:
            parser.error("--data is needed")
        if min(arguments.per_category, arguments.max_new_tokens, arguments.threads or 1) < 1:
            parser.error("--per-category, --max-new-tokens and --threads must be at least 1")
    return arguments


def _names(chosen: str | None) -> list[str]:
    names = chosen.split(",") if chosen else list(CONTESTANTS)
    for name in names:
        if name not in CONTESTANTS:
            raise UnknownNameError("contestant", name, CONTESTANTS)
    # All ratios are to unspool's plain decoding.
    return [PLAIN, *(name for name in names if name != PLAIN)]


def _terminated(*_: int | FrameType | None) -> None:
    sys.exit(143)  # an exception, so that the workers are stopped


def main() -> int | None:
    arguments = _arguments()
    if arguments.worker is not None:
        serve(arguments.worker)
        return None
    signal.signal(signal.SIGTERM, _terminated)
    names = _names(arguments.contestants)
    common.check_outputs(arguments.json, arguments.markdown)
    about = common.surroundings()
    prompts = common.interleave(common.read_prompts(arguments.data), arguments.seed, arguments.per_category)
    if arguments.genai_model and not Path(arguments.genai_model, "openvino_model.xml").is_file():
        raise UnspoolError(f"{arguments.genai_model} holds no openvino_model.xml; give an exported directory")
    source = resolve(arguments.model)
    tokenizer = Tokenizer(prepare.tokenizer_directory(source))
    ids = [tokenizer.chat([{"role": "user", "content": prompt.text}]) for prompt in prompts]
    settings = Settings(
        model=arguments.model,
        threads=arguments.threads or psutil.cpu_count(logical=False) or 1,
        context=max(map(len, ids)) + arguments.max_new_tokens,
        genai_model=arguments.genai_model,
    )
    benchmark = Benchmark(names)
    try:
        benchmark.start(settings)
        common.say("measuring the cost curve")
        curve = benchmark.ask(PLAIN, {"curve": True})
        for name in list(benchmark.workers):
            common.say(f"warming up {CONTESTANTS[name].label}")
            benchmark.decode(name, tokenizer.chat([{"role": "user", "content": _WARM_UP}]), _WARM_UP_TOKENS)
        generator = random.Random(arguments.seed)
        for index, (prompt, prompt_ids) in enumerate(zip(prompts, ids, strict=True), 1):
            order = list(benchmark.workers)
            for name in generator.sample(order, len(order)):
                emissions = benchmark.decode(name, prompt_ids, arguments.max_new_tokens)
                if emissions is not None:
                    run = Run(prompt.question_id, prompt.category, len(prompt_ids), emissions)
                    benchmark.runs[name].append(run)
            common.say(f"[{index}/{len(prompts)}] {prompt.category}: {benchmark.progress()}")
    finally:
        benchmark.stop()
    assert curve is not None
    summary = speed_report.summarise(benchmark.runs, benchmark.status, curve)
    chosen = (
        f"Model {source.name}; {len(prompts)} prompts of {arguments.data.name}, at most {arguments.per_category} "
        f"a category; max_new_tokens {arguments.max_new_tokens}; {settings.threads} threads each; "
        f"seed {arguments.seed} (choice of prompts, order of contestants)."
    )
    results = {
        **about,
        "model": {"name": source.name, "key": source.key},
        "settings": {
            "seed": arguments.seed,
            "per_category": arguments.per_category,
            "max_new_tokens": arguments.max_new_tokens,
            "threads": settings.threads,
        },
        "engines": benchmark.settings,
        "summary": summary,
        "curve": curve,
        "runs": {name: [run.to_json() for run in runs] for name, runs in benchmark.runs.items()},
    }
    markdown = speed_report.markdown(f"Decoding speed, {source.name}", summary, about, chosen)
    common.publish(markdown, results, arguments.markdown, arguments.json)
    return 1 if any(state.startswith("failed") for state in benchmark.status.values()) else 0


if __name__ == "__main__":
    common.run(main)
