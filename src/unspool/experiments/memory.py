"""Memory: the peak of a process that loads a converted model and generates, against the size of its weight file.

A fresh process loads the model and generates; the kernel gives the peak (VmHWM), which is reset between the two phases;
mapped files count. Before it, an unmeasured process does the same once: conversion and calibration happen there. Linux
only. ``before`` is the peak with unspool's imports alone.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from unspool.errors import UnspoolError, UnsupportedError
from unspool.reproduce.experiment import Case, Expect, Experiment, Figure, Row, Summary, Table
from unspool.reproduce.setup import Setup

PROMPT = "Write a short story about a lighthouse keeper who finds a message in a bottle."
METHODS = ("plain", "auto")
WEIGHTS = "int8"
_STATUS = Path("/proc/self/status")


def peak_bytes() -> int:
    """Highest resident memory of this process since the last reset."""
    match = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())
    if match is None:
        raise UnspoolError("this kernel gives no VmHWM; run on Linux")
    return int(match[1]) * 1024


def reset_peak() -> None:
    """Reset the peak."""
    Path("/proc/self/clear_refs").write_text("5")


def child(model_name: str, method: str, tokens: str) -> None:
    """Load, generate, and print the block_max of this process."""
    from unspool.decoding.load import load

    imported = peak_bytes()
    reset_peak()
    model = load(model_name, weights=WEIGHTS)
    loaded = peak_bytes()
    reset_peak()
    model.generate(PROMPT, method=method, max_new_tokens=int(tokens), eos_token_id=())
    print(json.dumps({"before": imported, "load": loaded, "generate": peak_bytes()}))


def cases(setup: Setup) -> list[Case]:
    """A case is a method."""
    if not _STATUS.is_file():
        raise UnsupportedError("peak memory is read from /proc; run on Linux")
    return [Case(method, partial(_measure, setup, method)) for method in METHODS]


def _measure(setup: Setup, method: str) -> list[Row]:
    from unspool.backends import prepare
    from unspool.models.resolve import resolve

    code = f"import sys; from {__name__} import child; child(*sys.argv[1:])"
    command = [sys.executable, "-c", code, setup.model, method, str(setup.pick(64, 4))]
    for _ in range(setup.pick(2, 1)):  # the first converts and calibrates, if need be; only the last counts
        done = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8", check=False)
        if done.returncode:
            raise UnspoolError(f"{setup.model}, {method}: a process failed with code {done.returncode}; see above")
    directory = prepare.converted(resolve(setup.model), WEIGHTS, setup.report)
    size = (directory / "openvino_model.bin").stat().st_size
    block_max: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return [{"variant": method, "weight file": size, **block_max}]


def summarise(rows: Sequence[Row]) -> Summary:
    """Peaks divided by the size of the weight file."""
    figures = {
        f"peak / weight file, {row['variant']}": Figure(max(row["load"], row["generate"]) / row["weight file"])
        for row in rows
    }
    columns = ("weight file", "before", "load", "generate")
    drawn = [(row["variant"], *(f"{row[name] / 1e6:.0f}" for name in columns)) for row in rows]
    return Summary(figures, [Table("MB", ("method", *columns), drawn)])


EXPERIMENT = Experiment(
    claim="Loading and generating take at most 1.5 times the weight file in resident memory.",
    control="the weight file, which is the least that can be read",
    test="a fresh process, int8, 64 tokens after a chat prompt",
    cases=cases,
    summarise=summarise,
    expects=[Expect(f"peak / weight file, {method}", at_most=1.5) for method in METHODS],
    count=1,
    minutes=2,
)
