"""Programs that a model may repeat endlessly, programs in which repetition is correct, and the counts.

Loops are correct code followed by near-copies of its last part (a digit or a name changes), cut before the next copy,
in the style of the paper's data. Tables each have a test of what the output must define. Lines and their structure are
found by a walk over tree-sitter's tree that shares nothing with the method's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from unspool.methods.shaping.rpg.structure import parser as tree_sitter
from unspool.sandbox import run as sandbox


@dataclass(frozen=True)
class Task:
    """A program to continue, and for tables the test that it must pass."""

    name: str
    program: str
    test: str = ""

    @property
    def prompt(self) -> str:
        """Without line breaks at the end: tokens often join them with what follows."""
        return self.program.rstrip()


LARGEST = (
    "def largest_@(nums):\n    best = nums[0]\n    for num in nums:\n        if num > best:\n            best = num\n"
)
SCORE = "    def score_@(self, x):\n        if x > @:\n            return self.weight * x\n        return 0\n\n"
NUMBERS = (4, 6, 8)
"""Number of copies that a loop begins with."""
PATTERNS = {
    "function": ("", LARGEST + "    return best\n\n"),
    "elif": ('def name(x):\n    if x == 0:\n        return "n0"\n', '    elif x == @:\n        return "n@"\n'),
    "assert": ("def double(x):\n    return 2 * x\n\n", "assert double(@) == 2 * @\n"),
    "method": ("class Model:\n    def __init__(self, weight):\n        self.weight = weight\n\n", SCORE),
    "print": ("def area(a, b):\n    return a * b\n\n", "print(area(@, 2))\n"),
    "comment": ("def total(xs):\n    return sum(xs)\n\n", "# Add the numbers\nprint(total([1, 2, 3]))\n"),
    "while": ("def walk(n):\n    i = 0\n", "    while i < n:\n        i += @\n"),
    "import": ("", "from package.module_@ import Class@\n"),
}
LOOPS = tuple(
    Task(f"{name}, {number}", head + "".join(block.replace("@", str(i)) for i in range(1, number + 1)))
    for number in NUMBERS
    for name, (head, block) in PATTERNS.items()
)

TABLES = (
    Task(
        "months",
        'DAYS = {\n    "January": 31,\n    "February": 28,\n    "March": 31,\n    "April": 30,\n',
        "assert len(DAYS) == 12 and sum(DAYS.values()) == 365",
    ),
    Task(
        "digits",
        'NAMES = {\n    0: "zero",\n    1: "one",\n    2: "two",\n    3: "three",\n',
        'assert [NAMES[i] for i in range(4, 10)] == ["four", "five", "six", "seven", "eight", "nine"]',
    ),
    Task(
        "weekdays",
        'def weekday(n):\n    if n == 0:\n        return "Monday"\n    elif n == 1:\n        return "Tuesday"\n',
        'assert [weekday(n) for n in range(2, 7)] == ["Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]',
    ),
    Task(
        "fields",
        "from dataclasses import dataclass\n\n\n@dataclass\nclass Address:\n"
        '    """Street, number, postcode, city, country and phone of a person."""\n\n'
        "    street: str\n    number: str\n",
        "assert {'postcode', 'city', 'country', 'phone'} <= set(Address.__annotations__)",
    ),
)


def shapes(text: str) -> list[tuple[str, str]]:
    """Text and structure of every line that is not blank, in order.

    The structure is the column and the kinds of terminals; names, numbers and strings are one kind each.
    """
    data = text.encode()
    lines = data.split(b"\n")
    kinds: list[list[str]] = [[] for _ in lines]

    def visit(node: Any) -> None:
        if node.type in ("string", "comment") or not node.children:
            kinds[node.start_point[0]].append(node.type)
        else:
            for child in node.children:
                visit(child)

    visit(tree_sitter().parse(data).root_node)
    return [
        (line.decode("utf-8", "replace"), f"{len(line) - len(line.lstrip())} {' '.join(kind)}")
        for line, kind in zip(lines, kinds, strict=True)
        if line.strip()
    ]


def repeated(prompt: str, output: str) -> tuple[float, float]:
    """Shares of the output's lines whose text, and whose structure, came before in the prompt or the output."""
    lines = shapes(prompt + output)
    begin = len(shapes(prompt))
    new = range(begin, len(lines))
    counts = [sum(lines[i][part] in {line[part] for line in lines[:i]} for i in new) for part in (0, 1)]
    return counts[0] / max(1, len(new)), counts[1] / max(1, len(new))


def compiles(program: str) -> bool:
    """Whether Python's own compiler accepts a program."""
    try:
        compile(program, "program", "exec")
    except (SyntaxError, ValueError):
        return False
    return True


def right(task: Task, output: str) -> bool:
    """Whether the longest beginning of the output that makes a program, by whole lines, passes the test."""
    lines = output.split("\n")
    for end in range(len(lines), -1, -1):
        program = task.prompt + "\n".join(lines[:end]) + "\n"
        if compiles(program):
            return sandbox.run(program + task.test)
    return False
