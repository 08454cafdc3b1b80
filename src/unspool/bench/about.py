"""The context of every result: date, machine, its load, versions, and the command that made it."""

from __future__ import annotations

import platform
import re
import shlex
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib import metadata
from typing import Any

_PACKAGES = ("openvino", "nncf", "torch", "transformers", "tokenizers", "numpy")
_PEERS = ("openvino-genai", "openvino-tokenizers", "llama-cpp-python")


def about() -> dict[str, Any]:
    """``date`` (UTC, ISO 8601), ``machine`` and ``versions``."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
    }


def machine() -> dict[str, Any]:
    """CPU, cores, memory in GB, system, and the current one-minute load average."""
    import psutil

    from unspool.models.calibration import processor

    return {
        "cpu": processor(),
        "physical_cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "load_average_1min": round(psutil.getloadavg()[0], 2),
    }


def versions(peers: bool = True) -> dict[str, str]:
    """Versions of Python, unspool and the packages that compute.

    Args:
        peers: whether to include those of other engines.
    """
    from unspool import __version__

    found = {"python": platform.python_version(), "unspool": __version__}
    installed = {distribution.name.lower().replace("_", "-") for distribution in metadata.distributions()}
    return found | {
        name: metadata.version(name) for name in (*_PACKAGES, *(_PEERS if peers else ())) if name in installed
    }


def command_line(arguments: Sequence[str]) -> str:
    """The command as typed by the user, with paths reduced to file names, since results are published."""
    return shlex.join(["unspool", *map(without_directories, arguments)])


def without_directories(text: str) -> str:
    """Paths in a text, reduced to file names."""
    return re.sub(r"(^|[=:])~?/(?:[^/]*/)*", r"\1", text)
