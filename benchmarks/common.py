"""What the benchmark scripts share: tables, files that appear whole, errors as one line."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unspool.errors import UnspoolError


def describe(about: dict[str, Any]) -> str:
    """``unspool.bench.about.about()`` as two lines of Markdown."""
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


def wilson(hits: int, count: int) -> tuple[float, float]:
    """95 % interval of a share, by Wilson's score."""
    z, share = 1.959964, hits / count
    middle, half = share + z * z / (2 * count), z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, (middle - half) / (1 + z * z / count)), min(1.0, (middle + half) / (1 + z * z / count))


def mcnemar(ours: Sequence[bool], theirs: Sequence[bool]) -> float:
    """Two-sided p of the exact test on what one side gets right and the other does not."""
    pairs = list(zip(ours, theirs, strict=True))
    gained, lost = pairs.count((True, False)), pairs.count((False, True))
    n = gained + lost
    ways = sum(math.comb(n, i) for i in range(min(gained, lost) + 1))
    return min(1.0, ways / 2 ** (n - 1)) if n else 1.0


def difference(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Mean of ``ours`` less ``theirs`` on the same items, and its 95 % interval: 10,000 bootstrap samples, seed 0."""
    each = np.subtract(np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64))
    drawn = np.random.default_rng(0).integers(0, len(each), (10_000, len(each)))
    low, high = np.quantile(each[drawn].mean(axis=1), (0.025, 0.975))
    return float(each.mean()), float(low), float(high)


def verdict(name: str, other: str, low: float, high: float, larger_is_better: bool = True) -> str:
    """What an interval of ``name`` less ``other`` says."""
    if low <= 0 <= high:
        return f"no difference between {name} and {other} is shown"
    ahead, behind = (name, other) if (low > 0) == larger_is_better else (other, name)
    return f"{ahead} is better than {behind}"


def interval(low: float, high: float, digits: int = 3) -> str:
    return f"{low:.{digits}f} to {high:.{digits}f}"


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
        write(markdown_file, markdown + "\n")
    if json_file is not None:
        write(json_file, json.dumps(results, indent=1) + "\n")


def write(path: Path, text: str) -> None:
    """Write a file that appears whole or not at all."""
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
