"""Does rpg end loops of code, and what does it harm? Greedy decoding with and without penalties.

Two sets of prompts, raw text without a chat template, made in the style of the paper's data:
- loops: correct code followed by near-copies of its last part (a digit or a name changes), cut before the next copy;
- tables: programs in which repetition is right, each with a test of what the output must define.

Counted in the output, by a walk over tree-sitter's tree that shares nothing with the method's own:
- lines: share of its lines whose text stands in the prompt or earlier in the output;
- structure: share of its lines whose column and kinds of terminals (names, numbers and strings are one each) do;
- parses: share of programs (prompt and output, without the last line where the length limit cut it) that compile;
- ended: share of outputs that reach the end of the text;
- right: share of table programs whose test passes in the sandbox, cut at the last line that leaves them compilable.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
from llguidance import LLTokenizer

from unspool.about import about
from unspool.api import Model, load
from unspool.bench import sandbox
from unspool.shaping import rpg
from unspool.shaping.structure import parser as tree_sitter


@dataclass(frozen=True)
class Task:
    """A program to go on with, and for tables the test that it must pass."""

    name: str
    program: str
    test: str = ""

    @property
    def prompt(self) -> str:
        """Without line breaks at the end: tokens often join them with what follows."""
        return self.program.rstrip()


def copies(text: str, numbers: range = range(1, 7)) -> str:
    return "".join(text.replace("@", str(i)) for i in numbers)


LARGEST = (
    "def largest_@(nums):\n    best = nums[0]\n    for num in nums:\n        if num > best:\n            best = num\n"
)
SCORE = "    def score_@(self, x):\n        if x > @:\n            return self.weight * x\n        return 0\n\n"

LOOPS = (
    Task("function", copies(LARGEST + "    return best\n\n")),
    Task(
        "elif",
        'def name(x):\n    if x == 0:\n        return "n0"\n' + copies('    elif x == @:\n        return "n@"\n'),
    ),
    Task("assert", "def double(x):\n    return 2 * x\n\n" + copies("assert double(@) == 2 * @\n")),
    Task("method", "class Model:\n    def __init__(self, weight):\n        self.weight = weight\n\n" + copies(SCORE)),
    Task("print", "def area(a, b):\n    return a * b\n\n" + copies("print(area(@, 2))\n")),
    Task("comment", "def total(xs):\n    return sum(xs)\n\n" + copies("# Add the numbers\nprint(total([1, 2, 3]))\n")),
    Task("while", "def walk(n):\n    i = 0\n" + copies("    while i < n:\n        i += @\n")),
    Task("import", copies("from package.module_@ import Class@\n")),
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
    """Text and structure of every line that holds something, in order."""
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
    """Shares of the output's lines whose text and whose structure came before."""
    lines = shapes(prompt + output)
    begin = len(shapes(prompt))
    new = range(begin, len(lines))
    counts = [sum(lines[i][part] in {line[part] for line in lines[:i]} for i in new) for part in (0, 1)]
    return counts[0] / max(1, len(new)), counts[1] / max(1, len(new))


def compiles(program: str) -> bool:
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


def settings(model: Model) -> dict[str, dict[str, Any]]:
    """The contestants, as options of ``generate``."""
    size = model.language_model.vocab_size
    vocabulary = LLTokenizer(model.tokenizer.to_json(size), n_vocab=size)
    shaper = rpg.build(rpg.RPGOptions(), vocabulary, model.eos_token_ids)
    return {
        "off": {},
        "repetition_penalty 1.1": {"repetition_penalty": 1.1},
        "no_repeat_ngram_size 8": {"no_repeat_ngram_size": 8},
        "rpg": {"shapers": [shaper]},
    }


def measure(model: Model, task: Task, options: dict[str, Any], max_new_tokens: int) -> dict[str, Any]:
    ids = model.tokenizer.encode(task.prompt)
    result = model.generate(ids, method="plain", max_new_tokens=max_new_tokens, **options)
    ended = result.finish_reason == "stop"
    lines, structure = repeated(task.prompt, result.text)
    whole = task.prompt + (result.text if ended else result.text.rpartition("\n")[0])
    return {
        "task": task.name,
        "lines": lines,
        "structure": structure,
        "parses": compiles(whole),
        "ended": ended,
        "right": right(task, result.text) if task.test else None,
        "tokens": len(result.token_ids),
        "output": result.text,
    }


def row(name: str, found: list[dict[str, Any]]) -> list[str]:
    columns = []
    for key in ("lines", "structure", "parses", "ended", "right", "tokens"):
        values = [float(one[key]) for one in found if one[key] is not None]
        columns.append(common.number(sum(values) / len(values) if values else None, 0 if key == "tokens" else 2))
    return [name, *columns]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", default="qwen2.5-coder-0.5b", help="as `unspool generate -m`")
    parser.add_argument("--limit", type=int, help="only the first prompts of each set")
    parser.add_argument("--max-new-tokens", type=int, default=256, help="256 by default")
    parser.add_argument("--json", type=Path, help="file for all figures and outputs")
    parser.add_argument("--markdown", type=Path, help="file for the tables")
    arguments = parser.parse_args()
    common.check_outputs(arguments.json, arguments.markdown)
    sandbox.require()
    setting = about()
    model = load(arguments.model, report=common.say)
    contestants = settings(model)
    sets = {"loops": LOOPS[: arguments.limit], "tables": TABLES[: arguments.limit]}
    figures: dict[str, dict[str, list[dict[str, Any]]]] = {}
    parts = [f"# Repetition of structure, {model.name}", common.describe(setting)]
    header = ("", "lines", "structure", "parses", "ended", "right", "tokens")
    for title, tasks in sets.items():
        figures[title] = {name: [] for name in contestants}
        for task in tasks:
            for name, options in contestants.items():
                figures[title][name].append(measure(model, task, options, arguments.max_new_tokens))
            common.say(f"{title}: {task.name}")
        table = common.table(header, [row(name, found) for name, found in figures[title].items()])
        parts += [f"## {title.capitalize()}: {len(tasks)} prompts, at most {arguments.max_new_tokens} tokens", table]
    results = {**setting, "model": model.name, "max_new_tokens": arguments.max_new_tokens, "figures": figures}
    common.publish("\n\n".join(parts), results, arguments.markdown, arguments.json)
    return 0


if __name__ == "__main__":
    common.run(main)
