"""Cost curves on disk: measured once per model, machine, threads and versions, then read from the cache."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path
from typing import cast

from unspool import __version__
from unspool.backends import store
from unspool.engine.contracts import Ability, LanguageModel, SeparableModel
from unspool.engine.cost import CostCurve, measure

_INSTRUCTIONS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8")


@cache
def processor() -> str:
    """Name of the CPU, as precisely as the system tells.

    Virtual machines give very different processors one name, so family, model and the instructions that decide how fast
    wide passes are belong to it.
    """
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.is_file():
        return platform.processor() or platform.machine()
    first = cpuinfo.read_text().split("\n\n")[0]
    facts = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in first.splitlines())}
    if "model name" not in facts:
        return platform.processor() or platform.machine()
    flags = set(facts.get("flags", "").split())
    known = [flag for flag in _INSTRUCTIONS if flag in flags]
    numbers = f"family {facts.get('cpu family', '?')} model {facts.get('model', '?')}"
    return f"{facts['model name']} ({', '.join([numbers, *known])})"


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
    """Measure the curve now (under 10 s) and store it: that of a model which has decoded for a while."""
    if Ability.SEPARATE_WIDTHS in model.abilities:
        cast("SeparableModel", model).settle()
    curve = measure(model, progress=progress)
    content = {"fingerprint": fingerprint(model, key), "curve": asdict(curve)}
    with store.atomic_file(path_of(model, key)) as temporary:
        temporary.write_text(json.dumps(content, indent=1))
    return curve
