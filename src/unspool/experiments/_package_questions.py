"""Questions about the documentation of installed packages, made by rule, so that the right span is known."""

from __future__ import annotations

import inspect
import random
import re
import string
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module, metadata

MODULES = ("numpy", "numpy.linalg", "numpy.fft", "numpy.ma", "numpy.strings")
FIELDS = {
    "Version": "Which version of {} is this?",
    "Summary": "What is {}?",
    "Author": "Who wrote {}?",
    "License": "Under which licence is {}?",
    "License-Expression": "Under which licence is {}?",
    "Requires-Python": "Which versions of Python does {} need?",
}
LONGEST = 600
"""Characters of a passage."""


@dataclass(frozen=True)
class Question:
    """A question, the passage that it is about, and the span that answers it."""

    kind: str
    passage: str
    text: str
    answer: str


def from_metadata() -> Iterator[Question]:
    """One passage a package: the short one-line fields that its metadata begin with."""
    for package in sorted(metadata.distributions(), key=lambda d: d.name.lower()):
        found = {key: package.metadata[key] for key in ("Name", *FIELDS) if key in package.metadata}
        found = {key: value for key, value in found.items() if "\n" not in value and len(value) < 150}
        passage = "\n".join(f"{key}: {value}" for key, value in found.items())
        for key, text in FIELDS.items():
            if key in found and len(passage) <= LONGEST:
                yield Question(key, passage, text.format(found["Name"]), found[key])


def from_docstrings() -> Iterator[Question]:
    """What the sections of a docstring in numpy's style say of parameters and of what is returned."""
    for module in MODULES:
        for name, function in sorted(vars(import_module(module)).items()):
            text = inspect.getdoc(function) if callable(function) and not name.startswith("_") else None
            head = re.split(r"\n+(?:See Also|Notes|References|Examples|Raises)\n-+\n", text or "")[0].strip()
            if not head or len(head) > LONGEST:
                continue
            parameters, _, returned = head.partition("\nReturns\n-------\n")
            for parameter, kind in re.findall(r"^(\w+) : (.+)$", parameters, re.MULTILINE):
                answer = kind.partition(", optional")[0].strip()
                yield Question("parameter", head, f"What is the type of the parameter {parameter} of {name}?", answer)
            if kind := re.match(r"\w+ : (.+)\n", returned):
                yield Question("returns", head, f"What is the type of what {name} returns?", kind[1].strip())


def questions(limit: int) -> list[Question]:
    """As many of either source in turns, drawn by seed 0 without replacement; one question a passage."""
    rng = random.Random(0)
    columns = []
    for source in (from_docstrings, from_metadata):
        passages: dict[str, list[Question]] = {}
        for question in source():
            passages.setdefault(question.passage, []).append(question)
        columns.append([rng.choice(passages[p]) for p in rng.sample(sorted(passages), len(passages))])
    half = min(map(len, columns))
    turns = [question for pair in zip(*(column[:half] for column in columns), strict=True) for question in pair]
    return [*turns, *(question for column in columns for question in column[half:])][:limit]


def words(text: str) -> list[str]:
    """As SQuAD compares them: lower case, no punctuation, no articles."""
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def f1(text: str, answer: str) -> float:
    """Of words, as SQuAD computes it."""
    mine, right = words(text), words(answer)
    if not mine or not right:
        return float(mine == right)
    return 2 * (Counter(mine) & Counter(right)).total() / (len(mine) + len(right))
