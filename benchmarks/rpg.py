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

Beside the usual penalties there are two controls of rpg itself:
- rpg, as coded: the rule of the authors' code as far as it is another one than the paper's: it multiplies logits, not
  probabilities, counts every structural repetition as the first, compares whole lines, and only where their number is a
  multiple of the block's. Symbols and critical tokens are ours.
- random places: what rpg took from the critical token and gave to the end of the text is taken from the likeliest token
  and given to the end at as many steps of the same prompt, drawn at random.

Differences are paired over prompts, with 10,000 bootstrap samples. Nothing is timed or tuned. With --json an
interrupted run goes on where it ended; --limit may change.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
import numpy as np
from llguidance import LLTokenizer

from unspool.bench.about import about
from unspool.decoding.load import load
from unspool.decoding.model import Model
from unspool.engine.contracts import Logits
from unspool.methods.shaping import rpg
from unspool.methods.shaping.rpg import structure
from unspool.methods.shaping.rpg.structure import parser as tree_sitter
from unspool.sandbox import run as sandbox
from unspool.storage.journal import Journal


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


LARGEST = (
    "def largest_@(nums):\n    best = nums[0]\n    for num in nums:\n        if num > best:\n            best = num\n"
)
SCORE = "    def score_@(self, x):\n        if x > @:\n            return self.weight * x\n        return 0\n\n"
NUMBERS = (4, 6, 8)
"""How many copies a loop begins with."""
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


class AsCoded(rpg.RPG):
    """The rule of the authors' code."""

    def __call__(self, tokens: Any, logits: Logits) -> Logits:
        ids: list[int] = tokens.tolist()
        pieces = [self._text(token) for token in ids]
        text = b"".join(pieces)
        copies = dict(rpg._content(ids))
        for token in self._lines(ids, pieces, text):
            copies.setdefault(token, 1)
        shaped = logits.copy() if copies else logits
        for token, n in copies.items():
            piece = self._text(token).decode("utf-8", "replace")
            shaped[token] *= self._options.decay**n
            if piece.strip() in rpg.STATEMENTS or (piece.isspace() and "\n" in piece):
                for end in self._eos:
                    shaped[end] /= self._options.eos_decay**n
        return shaped

    def _lines(self, ids: list[int], pieces: list[bytes], text: bytes) -> Iterator[int]:
        """The first token of a block of whole lines that the text's lines, read from the end, begin with twice."""
        if not text.endswith(b"\n"):
            return
        begins = [0, *(at + 1 for at in range(len(text)) if text[at] == ord("\n"))][:-1]
        lines: list[tuple[str, ...]] = [() for _ in begins]
        leaves, _ = structure.parse(text)
        for leaf in leaves:
            index = int(np.searchsorted(begins, leaf.start, "right")) - 1
            lines[index] = (*lines[index], leaf.symbol)
        backwards = lines[::-1]
        for size in range(1, len(lines) // 2 + 1):
            if len(lines) % size == 0 and backwards[:size] == backwards[size : 2 * size]:
                first = next((leaf.start for leaf in leaves if leaf.start >= begins[-size]), len(text))
                ends = np.cumsum([len(piece) for piece in pieces])
                if first < len(text):
                    yield ids[int(np.searchsorted(ends, first, "right"))]
                return


class Noted:
    """A shaper, and what it took and gave at each step, in nats."""

    def __init__(self, shaper: Any, prompt: int, eos: frozenset[int]) -> None:
        self._shaper, self._prompt, self._eos = shaper, prompt, sorted(eos)
        self.steps: dict[int, tuple[float, float]] = {}

    def __call__(self, tokens: Any, logits: Logits) -> Logits:
        shaped = self._shaper(tokens, logits)
        if shaped is not logits:
            change = shaped - logits
            taken, given = max(0.0, -float(change.min())), max(0.0, float(change[self._eos].max()))
            self.steps[len(tokens) - self._prompt] = (taken, given)
        return shaped


class Anywhere:
    """Takes and gives the same at other steps."""

    def __init__(self, steps: dict[int, tuple[float, float]], prompt: int, eos: frozenset[int]) -> None:
        self._steps, self._prompt, self._eos = steps, prompt, sorted(eos)

    def __call__(self, tokens: Any, logits: Logits) -> Logits:
        taken, given = self._steps.get(len(tokens) - self._prompt, (0.0, 0.0))
        shaped = logits.copy()
        shaped[shaped.argmax()] -= taken
        shaped[self._eos] += given
        return shaped


CONTESTANTS = ("off", "repetition_penalty 1.1", "no_repeat_ngram_size 8", "rpg", "rpg, as coded", "random places")
USUAL: dict[str, dict[str, Any]] = {
    "off": {},
    "repetition_penalty 1.1": {"repetition_penalty": 1.1},
    "no_repeat_ngram_size 8": {"no_repeat_ngram_size": 8},
}
Measured = dict[str, Any]


def measure(model: Model, task: Task, name: str, earlier: dict[str, Measured], max_new_tokens: int) -> Measured:
    """Decode one program.

    Args:
        earlier: what the contestants before this one gave on it.
    """
    ids = model.tokenizer.encode(task.prompt)
    eos = frozenset(model.eos_token_ids)
    noted = None
    if name in USUAL:
        options = USUAL[name]
    elif name == "random places":
        ours = earlier["rpg"]
        places = random.Random(task.name).sample(range(ours["tokens"]), len(ours["steps"]))
        options = {"shapers": [Anywhere(dict(zip(places, ours["steps"], strict=True)), len(ids), eos)]}
    else:
        size = model.language_model.vocab_size
        vocabulary = LLTokenizer(model.tokenizer.to_json(size), n_vocab=size)
        shaper = rpg.build(rpg.RPGOptions(), vocabulary, eos)
        noted = Noted(shaper if name == "rpg" else AsCoded(shaper._options, shaper._piece, eos), len(ids), eos)
        options = {"shapers": [noted]}
    result = model.generate(ids, method="plain", max_new_tokens=max_new_tokens, **options)
    ended = result.finish_reason == "stop"
    lines, repeats = repeated(task.prompt, result.text)
    whole = task.prompt + (result.text if ended else result.text.rpartition("\n")[0])
    return {
        "task": task.name,
        "name": name,
        "lines": lines,
        "structure": repeats,
        "parses": compiles(whole),
        "ended": ended,
        "right": right(task, result.text) if task.test else None,
        "tokens": len(result.token_ids),
        "steps": [step for at, step in sorted(noted.steps.items()) if at < len(result.token_ids)] if noted else [],
        "output": result.text,
    }


def row(name: str, found: list[Measured]) -> list[str]:
    columns = []
    for key in ("lines", "structure", "parses", "ended", "right", "tokens"):
        values = [float(one[key]) for one in found if one[key] is not None]
        columns.append(common.number(sum(values) / len(values) if values else None, 0 if key == "tokens" else 2))
    shaped = sum(len(one["steps"]) for one in found) / sum(one["tokens"] for one in found)
    return [name, *columns, common.number(shaped, 3) if name.startswith("rpg") else "–"]


def outcomes(figures: dict[str, list[Measured]], key: str, larger_is_better: bool) -> str:
    """rpg against the others, in words that the figures give."""
    lines = []
    for other in (name for name in CONTESTANTS if name != "rpg"):
        ours, theirs = ([float(one[key]) for one in figures[name]] for name in ("rpg", other))
        mean, low, high = common.difference(ours, theirs)
        said = common.verdict("rpg", other, low, high, larger_is_better)
        lines.append(f"- {key} of rpg less {other}: {mean:+.3f} ({common.interval(low, high)}): {said}.")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", default="qwen2.5-coder-0.5b", help="as `unspool generate -m`")
    parser.add_argument("--threads", type=int, help="as `unspool generate --threads`")
    parser.add_argument("--limit", type=int, help="only the first prompts of each set")
    parser.add_argument("--max-new-tokens", type=int, default=256, help="256 by default")
    parser.add_argument("--json", type=Path, help="file for all figures and outputs")
    parser.add_argument("--markdown", type=Path, help="file for the tables")
    arguments = parser.parse_args()
    common.check_outputs(arguments.json, arguments.markdown)
    sandbox.require()
    setting = about()
    model = load(arguments.model, report=common.say, threads=arguments.threads)
    header = {"model": model.key, "max_new_tokens": arguments.max_new_tokens}
    file = arguments.json and arguments.json.with_name(f"{arguments.json.name}.partial.jsonl")
    journal = Journal(file, header, "--json")
    known = {(line["task"], line["name"]): line for line in journal.lines}
    sets = {"tables": TABLES[: arguments.limit], "loops": LOOPS[: arguments.limit]}
    figures: dict[str, dict[str, list[Measured]]] = {}
    parts = [f"# Repetition of structure, {model.name}", common.describe(setting)]
    parts.append(f"Guards of the sandbox: {', '.join(sandbox.guards()) or 'none'}. Nothing here was timed.")
    columns = ("", "lines", "structure", "parses", "ended", "right", "tokens", "steps shaped")
    for title, tasks in sets.items():
        figures[title] = {name: [] for name in CONTESTANTS}
        for task in tasks:
            earlier: dict[str, Measured] = {}
            for name in CONTESTANTS:
                if (task.name, name) not in known:
                    known[task.name, name] = measure(model, task, name, earlier, arguments.max_new_tokens)
                    journal.add(known[task.name, name])
                earlier[name] = known[task.name, name]
                figures[title][name].append(earlier[name])
            common.say(f"{title}: {task.name}")
        table = common.table(columns, [row(name, found) for name, found in figures[title].items()])
        parts += [f"## {title.capitalize()}: {len(tasks)} prompts, at most {arguments.max_new_tokens} tokens", table]
        if title == "loops":
            parts += [outcomes(figures[title], "structure", False), outcomes(figures[title], "ended", True)]
        else:
            parts.append(outcomes(figures[title], "right", True))
    results = {**setting, "sandbox": sandbox.guards(), "options": header, "figures": figures}
    common.publish("\n\n".join(parts), results, arguments.markdown, arguments.json)
    if arguments.limit is None:
        journal.remove()
    return 0


if __name__ == "__main__":
    common.run(main)
