"""What do masks of code-like grammars cost, and what does it save to compute them only where they are needed?

    python benchmarks/lazy_masks.py -m qwen2.5-coder-0.5b --markdown lazy-masks.md

Three grammars in which nearly every token is free: a subset of Python, a C-like language, and SQL queries. Each text is
decoded without drafts, greedily or at temperature 1, and twice: lazily, which is the default (draw, keep the token if
the grammar permits it, else draw anew under the mask), and with a mask for every token. Both must give the same text.

- share: of the time of decoding, what the grammar's own calls took.
- masks: computed, as a share of the tokens.
- valid: texts that ended by themselves and that Python's own parser accepts; for the other grammars there is no judge.
"""

from __future__ import annotations

import argparse
import ast
import keyword
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import common
from rich.progress import track
from validity import timed

import unspool
from unspool.bench.about import about
from unspool.engine.contracts import Permitting
from unspool.errors import UnspoolError
from unspool.methods.constraints.grammar import GrammarConstraint

KEYWORDS = "|".join(keyword.kwlist)
GRAMMARS = {
    "Python": r"""
start: function
function: "def " NAME "(" (NAME (", " NAME)*)? "):\n" line+
line: "    " statement "\n"
statement: "return " sum | "pass" | NAME (" = " | " += ") sum | "if " test ": " small
    | "for " NAME " in " atom ": " small
small: "return " sum | "break" | "continue" | NAME (" = " | " += ") sum
test: sum (" < " | " > " | " == " | " != " | " <= " | " >= " | " in ") sum
sum: product ((" + " | " - ") product)*
product: atom ((" * " | " / " | " // " | " % ") atom)*
atom: NUMBER | STRING | NAME call* | "(" sum ")" | "[" (sum (", " sum)*)? "]"
call: "(" (sum (", " sum)*)? ")" | "[" sum "]" | "." NAME
NAME: /[a-z_][a-z0-9_]{0,15}/ & ~/WORDS/
NUMBER: /[1-9][0-9]{0,3}|0/
STRING: /"[^"\\\n]{0,20}"/
""".replace("WORDS", KEYWORDS),
    "C-like": r"""
start: TYPE " " NAME "(" (TYPE " " NAME (", " TYPE " " NAME)*)? ") {\n" line+ "}\n"
line: "    " statement "\n"
statement: TYPE " " NAME " = " sum ";" | NAME (" = " | " += ") sum ";" | "return " sum ";"
    | "if (" test ") { " small " }" | "while (" test ") { " small " }"
    | "for (int " NAME " = " sum "; " test "; " NAME "++) { " small " }"
small: NAME (" = " | " += ") sum ";" | "return " sum ";" | "break;"
test: sum (" < " | " > " | " == " | " != " | " <= " | " >= ") sum
sum: product ((" + " | " - ") product)*
product: atom ((" * " | " / " | " % ") atom)*
atom: NUMBER | NAME call? | "(" sum ")"
call: "(" (sum (", " sum)*)? ")" | "[" sum "]"
TYPE: "int" | "float" | "int*" | "float*"
NAME: /[a-z_][a-z0-9_]{0,15}/
NUMBER: /[1-9][0-9]{0,3}|0/
""",
    "SQL": r"""
start: "SELECT " columns " FROM " NAME join? where? group? order? limit? ";"
columns: "*" | column (", " column)*
column: (field | FUNCTION "(" (field | "*") ")") (" AS " NAME)?
field: (NAME ".")? NAME
join: " JOIN " NAME " ON " field " = " field
where: " WHERE " test ((" AND " | " OR ") test)*
test: field (" = " | " < " | " > " | " <> " | " LIKE ") value
value: NUMBER | STRING | field
group: " GROUP BY " field (", " field)*
order: " ORDER BY " field (" ASC" | " DESC")?
limit: " LIMIT " NUMBER
FUNCTION: "COUNT" | "SUM" | "AVG" | "MIN" | "MAX"
NAME: /[a-z_][a-z0-9_]{0,15}/
NUMBER: /[1-9][0-9]{0,3}|0/
STRING: /'[^'\n]{0,20}'/
""",
}
REQUESTS = {
    "Python": "Write a Python function that {what}. Answer with the code alone.",
    "C-like": "Write a C function that {what}. Answer with the code alone.",
    "SQL": "Write one SQL query that {query}. Answer with the query alone.",
}
WHATS = (
    "adds two numbers", "finds the largest of three numbers", "computes a factorial",
    "counts the even numbers of a list", "computes the greatest common divisor", "tells whether a number is prime",
    "sums the squares up to n", "clamps a value",
)  # fmt: skip
QUERIES = (
    "lists all users older than 30", "counts the orders of each customer", "finds the five dearest products",
    "sums the sales of each month", "lists the employees of the department 'sales'", "finds users without a name",
    "joins orders with customers", "gives the average price by category",
)  # fmt: skip


class _Never:
    """What no constraint is an instance of: masks are computed for every token."""


@dataclass
class Cost:
    """Of all texts of one grammar in one mode."""

    seconds: float = 0.0
    spent: list[float] = field(default_factory=list)
    tokens: int = 0
    masks: int = 0
    texts: list[str] = field(default_factory=list)
    finished: list[bool] = field(default_factory=list)


def measure(model: unspool.Model, grammar: str, lazy: bool, rounds: int, max_new_tokens: int) -> Cost:
    """Decode every request ``rounds`` times, in turns greedily and at temperature 1."""
    cost = Cost()
    allowed = GrammarConstraint.allowed

    def counted(self: GrammarConstraint, path: Any) -> Any:
        cost.masks += 1
        return allowed(self, path)

    with patch.object(GrammarConstraint, "allowed", counted), timed(cost.spent):
        for round_ in range(rounds):
            for what, query in zip(WHATS, QUERIES, strict=True):
                prompt = REQUESTS[grammar].format(what=what, query=query)
                start = time.perf_counter()
                with patch("unspool.engine.target.Permitting", Permitting if lazy else _Never):
                    result = model.generate(
                        prompt,
                        grammar=GRAMMARS[grammar],
                        method="plain",
                        max_new_tokens=max_new_tokens,
                        temperature=float(round_ % 2),
                        seed=round_,
                    )
                cost.seconds += time.perf_counter() - start
                cost.tokens += len(result.token_ids)
                cost.texts.append(result.text)
                cost.finished.append(result.finish_reason == "stop")
    return cost


def parses(text: str) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", default="qwen2.5-coder-0.5b")
    parser.add_argument("--rounds", type=int, default=2, help="of eight requests a grammar; every second one is drawn")
    parser.add_argument("--max-new-tokens", type=int, default=96)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    common.check_outputs(args.markdown, args.json)
    model = unspool.load(args.model, report=common.say)
    made_on = about()
    for grammar in GRAMMARS.values():  # reads the vocabulary, and a grammar that cannot be used is told now
        model.generate("Hi", grammar=grammar, method="plain", max_new_tokens=2)
    rows = []
    for grammar in track(GRAMMARS, "grammars"):
        costs = {lazy: measure(model, grammar, lazy, args.rounds, args.max_new_tokens) for lazy in (True, False)}
        if costs[True].texts != costs[False].texts:
            raise UnspoolError(f"{grammar}: lazy masks gave another text; please report this")
        for lazy, cost in costs.items():
            ended = [text for text, done in zip(cost.texts, cost.finished, strict=True) if done]
            rows.append(
                {
                    "grammar": grammar,
                    "masks when": "needed" if lazy else "always",
                    "tokens": cost.tokens,
                    "ended": f"{len(ended)}/{len(cost.texts)}",
                    "valid": f"{sum(map(parses, ended))}/{len(ended)}" if grammar == "Python" else "–",
                    "masks, % of tokens": common.number(100 * cost.masks / cost.tokens, 1),
                    "grammar, ms/token": common.number(1000 * sum(cost.spent) / cost.tokens),
                    "share, %": common.number(100 * sum(cost.spent) / cost.seconds, 1),
                    "tokens/s": common.number(cost.tokens / cost.seconds, 1),
                }
            )
    chosen = f"{len(WHATS) * args.rounds} texts a grammar of at most {args.max_new_tokens} tokens, without drafts."
    markdown = "\n\n".join(
        (
            f"# Masks of code-like grammars: {model.name}",
            chosen,
            common.table(list(rows[0]), [list(row.values()) for row in rows]),
            common.describe(made_on),
        )
    )
    results = {"about": made_on, "model": model.name, "settings": model.language_model.settings, "rows": rows}
    common.publish(markdown, results, args.markdown, args.json)


if __name__ == "__main__":
    common.run(main)
