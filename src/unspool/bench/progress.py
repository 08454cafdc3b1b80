"""Progress of a benchmark on stderr: a live table on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from unspool.bench.result import Run, Summary
from unspool.bench.summary import ALL, figures
from unspool.methods import PLAIN

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table


class Screen:
    """A ``runner.Progress``; enter it before use."""

    def __init__(self) -> None:
        # Stored, because libraries are silenced by replacing sys.stderr while a model is converted.
        self._stream = sys.stderr
        self._live: Live | None = None
        self._message = ""
        self._rows: list[Summary] = []
        self._prompt: tuple[int, str] | None = None

    def __enter__(self) -> Screen:
        if self._stream.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(file=self._stream), refresh_per_second=2, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, message: str) -> None:
        self._message = message
        self._show(f"{message} …")

    def ran(self, runs: Sequence[Run], done: int, total: int) -> None:
        last = runs[-1]
        self._rows = [row for row in figures(runs) if row.category == ALL]
        self._message = f"run {done} of {total}: {last.category} {last.prompt}"
        # Without a terminal, one line per prompt is enough.
        prompt = (last.repeat, last.prompt)
        if prompt != self._prompt or done == total:
            self._show(f"{self._message}  {'  '.join(map(_words, self._rows))}")
        elif self._live is not None:
            self._show("")
        self._prompt = prompt

    def _show(self, line: str) -> None:
        if self._live is not None:
            self._live.update(self._table())
        else:
            print(line, file=self._stream, flush=True)

    def _table(self) -> Table:
        from rich.table import Table

        table = Table(title=self._message, box=None, title_justify="left", min_width=40)
        if self._rows:
            for column in ("", "median tokens/s", "÷ plain, totals", "runs"):
                table.add_column(column, justify="left" if not column else "right")
        for row in self._rows:
            table.add_row(row.contestant, f"{row.tokens_per_second.median:.1f}", ratio(row), str(row.runs))
        return table


def ratio(row: Summary) -> str:
    """The ratio of totals to plain, marked in words if below 1."""
    if row.contestant == PLAIN or row.ratio_totals is None:
        return ""
    return f"{row.ratio_totals:.2f}{' slower' if row.slower else ''}"


def _words(row: Summary) -> str:
    return " ".join(filter(None, (row.contestant, f"{row.tokens_per_second.median:.1f}/s", ratio(row))))
