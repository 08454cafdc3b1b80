"""The default prompts of a proof: short, of several kinds, predictable and not."""

from __future__ import annotations

from unspool.suites.prompts import Prompt

_CODE = """\
def mean(values):
    total = 0
    for value in values:
        total += value
    return total / len(values)
"""

TEXT = """\
The lighthouse on the northern cape was built in 1871 from granite that ships brought across the bay. For ninety years a
keeper wound its clockwork every four hours. Since 1961 an electric motor turns the lens, and the keeper's house holds
the island's library, which lends out binoculars as well as books."""

PROMPTS: tuple[Prompt, ...] = (
    Prompt("question", "chat", "Why does bread rise in the oven? Answer in a few sentences."),
    Prompt("advice", "chat", "My neighbour plays the drums at night. How do I ask for quiet without a quarrel?"),
    Prompt("summary", "summary", f"Summarise this text in two sentences.\n\n{TEXT}"),
    Prompt("extraction", "json", f"Give the years and what happened in them as a JSON list of objects.\n\n{TEXT}"),
    Prompt("edit", "code edit", f"Rename `values` to `numbers` and handle an empty list. Print the code.\n\n{_CODE}"),
    Prompt("tests", "code", f"Write three unit tests for this function.\n\n{_CODE}"),
    Prompt("program", "code", "Write a Python class for a queue of limited length, with docstrings."),
    Prompt("arithmetic", "arithmetic", "A box holds 12 eggs. Anna buys 7 boxes and breaks 9 eggs. How many are left?"),
    Prompt("list", "list", "List the numbers from 1 to 20 in English words, one a line."),
    Prompt("translation", "translation", "Translate into French: The train to Lyon leaves at seven from platform two."),
    Prompt("story", "story", "Begin a story about a clockmaker who finds a letter inside an old clock."),
    Prompt("copy", "copy", f"Repeat this text word for word.\n\n{TEXT}"),
)
