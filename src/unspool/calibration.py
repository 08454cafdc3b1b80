"""Cost curves on disk: measured once per model, machine, threads and versions, then read from the cache."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path

from unspool import __version__
from unspool.backends import store
from unspool.engine.contracts import LanguageModel
from unspool.engine.cost import CostCurve, measure


@cache
def processor() -> str:
    """Name of the CPU, as precisely as the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def fingerprint(model: LanguageModel, key: str) -> dict[str, str]:
    """All that a curve depends on; a change of any of it makes a new measurement."""
    return {
        "model": key,
        "unspool": __version__,
        "curve": " ".join(field.name for field in fields(CostCurve)),
        "machine": f"{platform.node()} {processor()}",
        **model.settings,
    }


def path_of(model: LanguageModel, key: str) -> Path:
    """The file of the curve, whether it exists or not."""
    text = json.dumps(fingerprint(model, key), sort_keys=True)
    return store.calibration_dir() / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"


def load(model: LanguageModel, key: str) -> CostCurve | None:
    """The stored curve, or None if there is none for this model on this machine."""
    path = path_of(model, key)
    if not path.is_file():
        return None
    data = json.loads(path.read_text())["curve"]
    return CostCurve(
        tuple(data["nodes"]),
        tuple(data["lengths"]),
        tuple(tuple(row) for row in data["ms"]),
        data["switch_ms"],
        data["padded"],
    )


def calibrate(model: LanguageModel, key: str, progress: Callable[[float], None] = lambda done: None) -> CostCurve:
    """Measure the curve now (under 10 s) and store it."""
    curve = measure(model, progress=progress)
    content = {"fingerprint": fingerprint(model, key), "curve": asdict(curve)}
    with store.atomic_file(path_of(model, key)) as temporary:
        temporary.write_text(json.dumps(content, indent=1))
    return curve
