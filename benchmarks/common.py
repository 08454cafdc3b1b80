"""What the benchmark scripts share: tables, files that appear whole, errors as one line."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from unspool.errors import UnspoolError


def describe(about: dict[str, Any]) -> str:
    """``unspool.about.about()`` as two lines of Markdown."""
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
