"""The elements of a page: sections with a chart, its legend and its tables. The template lays them out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

OPEN_ROWS = 12


@dataclass(frozen=True)
class Chart:
    """One chart, drawn for wide and for narrow screens.

    Attributes:
        name: prefix of all ids inside, unique on the page.
        wide, narrow: SVG elements.
    """

    name: str
    wide: Markup
    narrow: Markup


@dataclass(frozen=True)
class Key:
    """An entry of a legend.

    Attributes:
        colour: CSS colour.
        path: SVG path of the marker in a square from -5 to 5.
        hollow: whether the marker is only an outline.
    """

    label: str
    colour: str
    path: str
    hollow: bool = False


@dataclass(frozen=True)
class Cell:
    """A highlighted cell: ``bad`` for a fault or something slower than plain, ``good`` for success."""

    text: str
    mark: str = ""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        caption: its content, in a few words.
        note: how to read it.
        columns: headers.
        rows: cells; the first ``heads`` of each row are its headers.
        heads: number of header cells of a row.
        words: columns (counted from 0) with words, aligned left; numbers are aligned right.
        open: whether it is expanded; by default if it is short.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    note: str = ""
    heads: int = 1
    words: frozenset[int] = frozenset()
    open: bool | None = None

    @property
    def unfolded(self) -> bool:
        return len(self.rows) <= OPEN_ROWS if self.open is None else self.open

    def cells(self) -> list[list[Cell]]:
        return [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in self.rows]


@dataclass(frozen=True)
class Section:
    """A heading, the text below it, the chart, the numbers."""

    title: str
    text: Sequence[str] = ()
    keys: Sequence[Key] = ()
    chart: Chart | None = None
    tables: Sequence[Table] = ()


@dataclass(frozen=True)
class Part:
    """One result: its headline and its sections.

    Attributes:
        name: anchor on the page.
        title: such as "Benchmark: smollm2-135m".
        headline: the main result in one sentence.
        more: sentences below it.
        bad: whether the headline reports a fault.
        command: the command line that made the result.
    """

    name: str
    title: str
    headline: str
    more: Sequence[str]
    command: str
    bad: bool = False
    sections: list[Section] = field(default_factory=list)
