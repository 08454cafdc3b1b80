"""What the benchmark scripts share: prompts, machine and versions, files that appear whole, errors as one line."""

from __future__ import annotations

import json
import os
import platform
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from itertools import zip_longest
from pathlib import Path
from typing import Any

import psutil

import unspool
from unspool.calibration import processor
from unspool.errors import UnspoolError

MT_BENCH = frozenset({"writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities"})
"""Categories of the file that Spec-Bench reports together as ``mt_bench``."""

_PACKAGES = (
    "openvino",
    "openvino-genai",
    "openvino-tokenizers",
    "llama-cpp-python",
    "nncf",
    "torch",
    "transformers",
    "tokenizers",
    "numpy",
)


@dataclass(frozen=True)
class Prompt:
    """One line of a Spec-Bench file; ``text`` is the first turn, ``category`` the group that Spec-Bench reports."""

    question_id: int
    category: str
    text: str


def read_prompts(path: Path) -> list[Prompt]:
    """The prompts of a JSONL file whose objects hold ``question_id``, ``category`` and ``turns``.

    Raises:
        UnspoolError: if the file is missing or a line does not hold these.
    """
    if not path.is_file():
        raise UnspoolError(f"no such file: {path}; give Spec-Bench's question.jsonl, or a file of the same form")
    prompts = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            group = "mt_bench" if row["category"] in MT_BENCH else row["category"]
            prompts.append(Prompt(int(row["question_id"]), group, row["turns"][0]))
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise UnspoolError(
                f"{path}, line {number}: not an object with question_id, category and turns ({error})"
            ) from error
    if not prompts:
        raise UnspoolError(f"{path} holds no prompts")
    return prompts


def interleave(prompts: Sequence[Prompt], seed: int, per_category: int | None = None) -> list[Prompt]:
    """Prompts in rounds of one per category, so that a slow hour of the machine falls on all of them.

    Args:
        seed: of the order within each category.
        per_category: most prompts of a category; None for all.
    """
    generator = random.Random(seed)
    columns = []
    for category in sorted({prompt.category for prompt in prompts}):
        members = [prompt for prompt in prompts if prompt.category == category]
        columns.append(generator.sample(members, len(members))[:per_category])
    return [prompt for turn in zip_longest(*columns) for prompt in turn if prompt is not None]


def machine() -> dict[str, Any]:
    """The machine, and how busy it was when asked."""
    return {
        "cpu": processor(),
        "physical_cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "load_average_1min": round(psutil.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    """Versions of Python, unspool and the packages that compute here; those that are not installed are left out."""
    found = {"python": platform.python_version(), "unspool": unspool.__version__}
    installed = {distribution.name.lower().replace("_", "-") for distribution in metadata.distributions()}
    return found | {name: metadata.version(name) for name in _PACKAGES if name in installed}


def surroundings() -> dict[str, Any]:
    """What every result carries: date, machine, versions, command line."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        # Results are published, so files are named without their directories.
        "command": " ".join(Path(part).name if os.sep in part else part for part in sys.argv),
    }


def describe(about: dict[str, Any]) -> str:
    """``surroundings()`` as two lines of Markdown."""
    host = about["machine"]
    return (
        f"{about['date']}, {host['cpu']}, {host['physical_cores']} physical cores ({host['logical_cores']} logical), "
        f"{host['memory_gb']} GB, {host['system']}; load average before the run {host['load_average_1min']}.\n"
        + ", ".join(f"{name} {version}" for name, version in about["versions"].items())
        + "."
    )


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; the first column is text, the others are aligned right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def number(value: float | None, digits: int = 2) -> str:
    """A figure of a table; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def check_outputs(*files: Path | None) -> None:
    """Refuse an output file that could not be written, before hours of work.

    Raises:
        UnspoolError: if its directory does not exist or cannot be written.
    """
    for file in files:
        if file is not None and (not os.access(file.absolute().parent, os.W_OK) or file.is_dir()):
            raise UnspoolError(f"cannot write {file}; name a file in a directory that exists and can be written")


def publish(markdown: str, results: dict[str, Any], markdown_file: Path | None, json_file: Path | None) -> None:
    """Print the Markdown and write the files that were asked for; each appears whole or not at all."""
    print(markdown)
    if markdown_file is not None:
        _write(markdown_file, markdown + "\n")
    if json_file is not None:
        _write(json_file, json.dumps(results, indent=1) + "\n")


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def say(message: str) -> None:
    """Progress, on stderr."""
    print(message, file=sys.stderr, flush=True)


def run(main: Callable[[], int | None]) -> None:
    """Run a script: errors that a user can mend become one line and exit code 2, Ctrl-C exit code 130."""
    try:
        code = main()
    except (UnspoolError, OSError) as error:
        say(f"error: {error}")
        code = 2
    except KeyboardInterrupt:
        say("interrupted; no results were written")
        code = 130
    sys.exit(code)
