"""Peak resident memory of a converted model against the size of its weight file.

A fresh process loads the model and generates; the kernel tells the peak (VmHWM), which is reset between the two phases.
Before it, an unmeasured process does the same once: conversion and calibration happen there. Linux only.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import common

from unspool.bench.about import about
from unspool.errors import UnspoolError

_PROMPT = "Write a short story about a lighthouse keeper who finds a message in a bottle."
_TOKENS = 64
_STATUS = Path("/proc/self/status")


def peak_bytes() -> int:
    """Highest resident memory of this process since the last reset."""
    match = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())
    if match is None:
        raise UnspoolError("this kernel tells no VmHWM; run on Linux")
    return int(match[1]) * 1024


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def child(model_name: str, weights: str, method: str) -> dict[str, int]:
    """Load, generate, and tell the peaks of this process."""
    from unspool.decoding.load import load

    imported = peak_bytes()
    reset_peak()
    model = load(model_name, weights=weights, report=common.say)
    loaded = peak_bytes()
    reset_peak()
    model.generate(_PROMPT, method=method, max_new_tokens=_TOKENS, eos_token_id=())
    return {"before": imported, "load": loaded, "generate": peak_bytes()}


def measure(model: str, weights: str, method: str) -> dict[str, Any]:
    """Peaks of a fresh process in bytes, and the size of the weight file."""
    from unspool.backends import prepare
    from unspool.models.resolve import resolve

    command = [sys.executable, str(Path(__file__).resolve()), "--child", model, weights, method]
    for _ in range(2):  # the first converts and calibrates, if need be; only the second counts
        done = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8", check=False)
        if done.returncode:
            raise UnspoolError(f"{model} ({weights}, {method}) failed with exit code {done.returncode}; see above")
    directory = prepare.converted(resolve(model), weights, common.say)
    size = (directory / "openvino_model.bin").stat().st_size
    peaks: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    ratio = max(peaks["load"], peaks["generate"]) / size
    name = resolve(model).name
    return {"model": name, "weights": weights, "method": method, "weight_file": size, **peaks, "ratio": ratio}


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(child(*sys.argv[2:])))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--models", default="smollm2-135m,qwen2.5-coder-0.5b", help="comma-separated")
    parser.add_argument("--weights", default="int8", help="comma-separated, of int8, int4 and fp32")
    parser.add_argument("--methods", default="plain,auto", help="comma-separated, of `unspool methods`")
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--markdown", type=Path, help="file for the table")
    arguments = parser.parse_args()
    if not _STATUS.is_file():
        raise UnspoolError("peak memory is read from /proc; run on Linux")
    common.check_outputs(arguments.json, arguments.markdown)
    setting = about()
    figures = []
    for model in arguments.models.split(","):
        for weights in arguments.weights.split(","):
            for method in arguments.methods.split(","):
                common.say(f"{model}, {weights}, {method}")
                figures.append(measure(model, weights, method))
    rows = [
        [
            f"{row['model']}, {row['weights']}, {row['method']}",
            *(f"{row[key] / 1e6:.0f}" for key in ("weight_file", "before", "load", "generate")),
            common.number(row["ratio"]),
        ]
        for row in figures
    ]
    columns = ["model, weights, method", "weight file, MB", "imports only, MB", "peak of load, MB"]
    markdown = "\n\n".join(
        (
            "# Peak resident memory",
            common.describe(setting),
            f"A fresh process with the model already converted and calibrated; {_TOKENS} tokens after a chat prompt; "
            "mapped files count. Last column: the higher of the two peaks ÷ weight file (`openvino_model.bin`).",
            common.table([*columns, "peak of generate, MB", "ratio"], rows),
        )
    )
    common.publish(markdown, {**setting, "memory": figures}, arguments.markdown, arguments.json)
    return 0


if __name__ == "__main__":
    common.run(main)
