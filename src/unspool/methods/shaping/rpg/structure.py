"""The grammar structure of Python text, and the repetition at the end of a sequence.

tree-sitter parses text that is unfinished or broken, which generated text is at almost every step. Every parse starts
from the beginning: a parse that continues an earlier one may read broken text differently, so the scores of a token
tree would depend on the order in which its nodes are queried.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from unspool.errors import UnspoolError

if TYPE_CHECKING:
    from tree_sitter import Node, Parser


class Leaf(NamedTuple):
    """A terminal of the grammar in a text.

    Attributes:
        symbol: its kind: names, numbers, strings and comments are one symbol each, keywords and operators themselves.
            If it begins a line outside brackets, it includes its column, because layout is grammar there.
        start: its first byte.
        end: the byte after its last one.
    """

    symbol: str
    start: int
    end: int


@cache
def parser() -> Parser:
    """tree-sitter's parser of Python.

    Raises:
        UnspoolError: if a package is missing.
    """
    try:
        import tree_sitter_python
        from tree_sitter import Language, Parser
    except ImportError as error:
        raise UnspoolError(f'the structure of code needs {error.name}; pip install "unspool[code]"') from error
    return Parser(Language(tree_sitter_python.language()))


def parse(text: bytes) -> tuple[list[Leaf], bool]:
    """The terminals of a text, and whether it is a complete program.

    Args:
        text: Python in UTF-8, which may end anywhere. Text that cannot be parsed still yields the terminals seen.
    """
    root = parser().parse(text).root_node
    found: list[Leaf] = []
    complete, depth, unread = not root.has_error, 0, 0
    for node in _terminals(root):
        if node.start_byte == node.end_byte:
            complete = False  # a body or a bracket is still to come
            continue
        if node.start_byte < unread:
            continue
        start, end, kind = node.start_byte, node.end_byte, node.type
        if kind == "string_start":
            # Not a string: it is not closed yet, and the terminals in it are words of the string.
            end = _unclosed(text, node)
            unread, kind = end, "string"
        elif kind in ("print", "exec"):
            kind = "identifier"  # in broken text they are parsed as statements of Python 2
        line = text.rfind(b"\n", 0, start) + 1
        first = not depth and not text[line:start].strip()
        depth = max(0, depth + (kind in ("(", "[", "{")) - (kind in (")", "]", "}")))
        found.append(Leaf(f"{start - line}|{kind}" if first else kind, start, end))
    return found, complete


def tail_repeat(sequence: Sequence[Hashable]) -> tuple[int, int]:
    """The shortest block that ends a sequence and also comes directly before its last copy.

    Returns:
        Length of the block, and how many equal blocks come directly before the last one; (0, 0) without repetition.
    """
    backwards = sequence[::-1]
    size = len(backwards)
    # match[d]: how far the sequence, read from its end, agrees with itself d steps on (the Z function), in linear time.
    match = [0] * size
    left = right = 0
    for d in range(1, size):
        length = min(right - d, match[d - left]) if d < right else 0
        while d + length < size and backwards[length] == backwards[d + length]:
            length += 1
        match[d] = length
        if length >= d:
            return d, length // d
        if d + length > right:
            left, right = d, d + length
    return 0, 0


def _terminals(root: Node) -> list[Node]:
    """Nodes without children from left to right; a closed string counts as one."""
    cursor, found = root.walk(), []
    while True:
        node = cursor.node
        assert node is not None
        if node.type == "string" or not cursor.goto_first_child():
            found.append(node)
            while not cursor.goto_next_sibling():
                if not cursor.goto_parent():
                    return found


def _unclosed(text: bytes, quote: Node) -> int:
    """Where an unclosed string ends: with the text, or with the line if its quotes are single ones."""

    triple = text[quote.start_byte : quote.end_byte].endswith((b'"""', b"'''"))
    line = -1 if triple else text.find(b"\n", quote.end_byte)
    return len(text) if line < 0 else line
