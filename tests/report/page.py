"""Reads a report the way a test needs it: tables by heading and caption, all text, all attributes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from xml.etree import ElementTree

Rows = list[list[str]]


class Page(HTMLParser):
    """A parsed report.

    Attributes:
        tables: by section heading and caption, rows of cell texts; of several results, the last one.
        attributes: of all elements: (tag, name, value).
        text: what is outside of styles.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables: dict[tuple[str, str], Rows] = {}
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self._heading = self._caption = ""
        self._open: list[str] = []
        self._rows: Rows = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self._open.append(tag)
        if tag == "h3":
            self._heading = ""
        elif tag == "caption":
            self._caption = ""
        elif tag == "table":
            self._rows = []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        # Elements without an end, such as <meta>, are closed with the one around them.
        if tag in self._open:
            while self._open.pop() != tag:
                pass
        if tag == "table":
            self.tables[self._heading, self._caption] = self._rows

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        self.text += data
        if "h3" in self._open:
            self._heading += data
        elif "caption" in self._open:
            self._caption += data
        elif {"td", "th"} & set(self._open):
            self._rows[-1][-1] += data

    def row(self, heading: str, *heads: str) -> list[str]:
        """The row of a section that begins with these cells, joined over the section's tables."""
        found = [row for row in self.rows(heading) if tuple(row[: len(heads)]) == heads]
        assert len(found) == 1, (heading, heads, found)
        return found[0][len(heads) :]

    def rows(self, heading: str) -> Iterator[list[str]]:
        for (section, _), rows in self.tables.items():
            if section == heading:
                yield from rows[1:]

    def ids(self) -> list[str]:
        return [value for _, name, value in self.attributes if name == "id"]


def svgs(text: str) -> list[ElementTree.Element]:
    """The charts of a report; each must be well-formed."""
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg xmlns.*?</svg>", text, re.DOTALL)]
