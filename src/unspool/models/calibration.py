"""Cost curves on disk: measured once per model, machine, number of threads and versions, then read from the cache."""

from __future__ import annotations

import hashlib
import json
import math
import platform
from contextlib import ExitStack
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path
from typing import cast

from unspool import __version__
from unspool.engine.contracts import Ability, LanguageModel, SpecialisingModel
from unspool.engine.cost import CostCurve, measure
from unspool.engine.progress import Progress, silent
from unspool.errors import UnspoolError
from unspool.storage import cache as store

_INSTRUCTIONS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8")


@cache
def processor() -> str:
    """Name of the CPU, as precisely as the system reports it.

    Virtual machines give very different processors the same name, so it includes the family, the model and the
    instruction sets that decide how fast wide passes are.
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
    """Everything that a curve depends on; if any of it changes, the curve is measured again."""
    return {
        "model": key,
        "unspool": __version__,
        "curve": " ".join(field.name for field in fields(CostCurve)),
        "machine": f"{platform.node()} {processor()}",
        **model.settings,
    }


def path_of(model: LanguageModel, key: str) -> Path:
    """The file of the curve, whether or not it exists."""
    text = json.dumps(fingerprint(model, key), sort_keys=True)
    return store.calibration_dir() / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"


def load(model: LanguageModel, key: str) -> CostCurve | None:
    """The stored curve; None if there is none for this model on this machine, or its file is damaged."""
    try:
        data = json.loads(path_of(model, key).read_text("utf-8"))["curve"]
        curve = CostCurve(
            tuple(int(n) for n in data["nodes"]),
            tuple(int(n) for n in data["lengths"]),
            tuple(tuple(float(ms) for ms in row) for row in data["ms"]),
            float(data["switch_ms"]),
            bool(data["padded"]),
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return curve if _is_sound(curve) else None


def _is_sound(curve: CostCurve) -> bool:
    """Whether the curve can be a measurement; a truncated or edited file is measured again."""
    figures = [ms for row in curve.ms for ms in row]
    return (
        curve.nodes[:1] == (1,)
        and len(curve.lengths) > 0
        and all(list(points) == sorted(set(points)) for points in (curve.nodes, curve.lengths))
        and [len(row) for row in curve.ms] == [len(curve.nodes)] * len(curve.lengths)
        and all(0 < ms < math.inf for ms in figures)
        and 0 <= curve.switch_ms < math.inf
    )


def calibrate(model: LanguageModel, key: str, progress: Progress = silent) -> CostCurve:
    """Measure the curve now (under 10 s), as for a model that has decoded for a while, and store it.

    One process measures at a time; if another one has just measured this curve, its curve is used. An unwritable cache
    is not an error: the curve then serves only this process, with a message on stderr.
    """
    path = path_of(model, key)
    with ExitStack() as stack:
        before = _changed(path)
        try:
            waiting = "another process is measuring the cost curve; waiting for it"
            stack.enter_context(store.lock(f"calibrate-{path.stem}", waiting))
        except (UnspoolError, OSError) as error:
            _say_why_not(error)
            return _measured(model, progress)
        if _changed(path) != before and (curve := load(model, key)) is not None:
            return curve
        curve = _measured(model, progress)
        content = {"fingerprint": fingerprint(model, key), "curve": asdict(curve)}
        try:
            with store.atomic_file(path) as temporary:
                temporary.write_text(json.dumps(content, indent=1), "utf-8")
        except (UnspoolError, OSError) as error:
            _say_why_not(error)
        return curve


def _changed(path: Path) -> int | None:
    """Modification time of a file in nanoseconds; None without a file."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def _measured(model: LanguageModel, progress: Progress) -> CostCurve:
    if Ability.SPECIALISE_WIDTHS in model.abilities:
        cast("SpecialisingModel", model).warm_up()
    return measure(model, progress=progress)


def _say_why_not(error: Exception) -> None:
    store.say(f"the cost curve is kept only for this process: {error}")
