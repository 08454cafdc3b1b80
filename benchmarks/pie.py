"""Editing a cached prompt far before the cursor: PIE and its hybrid against recomputation and conflict encoding.

Prompts are sources of installed packages (``pie_edits``). Ordinary edits insert a function, take one out, or rename a
local name; adversarial ones change a definition that the next token depends on, where PIE is expected to give the
answer of the text before the edit.

- KL: divergence of the next token's distribution from that after recomputation; top-1: share of edits with the same
  likeliest token.
- line: share of edits after which the greedy next line is that of recomputation; EM and ES: next line against the true
  one, equal or similar (difflib's ratio, 0 to 100).
- answer: share of adversarial edits after which the line begins with what the definition now says; old: share of those
  after which it is still the line of the text before the edit, where that of recomputation is another one.
- encoded: tokens that went through the model; ms: mean time of the update, tokenising included, one run each.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from copy import copy
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from pathlib import Path
from statistics import fmean

import common
import numpy as np
from numpy.typing import NDArray
from pie_edits import Case, cases

from unspool.about import about
from unspool.api import load
from unspool.cache.api import EditableText, edit
from unspool.cache.pie import PieOptions
from unspool.engine.numeric import log_softmax
from unspool.engine.tree import TokenTree


@dataclass(frozen=True)
class Outcome:
    """One edit in one mode."""

    module: str
    kind: str
    adversarial: bool
    mode: str
    kl: float
    top1: bool
    same_line: bool
    exact_match: bool
    similarity: float
    answer: bool
    old: bool
    encoded: int
    shifted: int
    ms: float


def modes(sizes: Sequence[int]) -> dict[str, PieOptions]:
    """Recomputation first: the others are compared with it."""
    found = {name: PieOptions(name) for name in ("recompute", "conflict", "pie")}
    for refresh in ("last", "names"):
        for size in sizes:
            found[f"hybrid, {refresh} {size}"] = PieOptions("hybrid", refresh, size)
    return found


def next_token(editor: EditableText) -> NDArray[np.float64]:
    """Log-probabilities [vocabulary] after the text."""
    session = editor._session.fork()
    row = log_softmax(session.score(TokenTree.chain(editor.tokens[-1:])).logits[0])
    session.close()
    return row


def next_line(editor: EditableText, max_new_tokens: int) -> str:
    text = editor.generate(method="plain", max_new_tokens=max_new_tokens).text
    return text.strip().partition("\n")[0].strip()


def run(base: EditableText, case: Case, options: dict[str, PieOptions], max_new_tokens: int) -> list[Outcome]:
    outcomes: list[Outcome] = []
    true: NDArray[np.float64] | None = None
    line, line_before = "", next_line(base, max_new_tokens)
    for mode, chosen in options.items():
        editor = copy(base)  # the text is encoded once, and each mode gets a cache of its own
        editor._options, editor._session = chosen, base._session.fork()
        done = editor.replace_all(case.changes)
        row = next_token(editor)
        text = next_line(editor, max_new_tokens)
        if true is None:
            true, line = row, text
        outcomes.append(
            Outcome(
                case.module,
                case.kind,
                case.adversarial,
                mode,
                kl=float((np.exp(true) * (true - row)).sum()),
                top1=bool(row.argmax() == true.argmax()),
                same_line=text == line,
                exact_match=text == case.line,
                similarity=100 * SequenceMatcher(None, text, case.line, autojunk=False).ratio(),
                answer=text.startswith(case.line),
                old=text == line_before != line,
                encoded=done.encoded,
                shifted=done.shifted,
                ms=done.ms,
            )
        )
        editor.close()
    return outcomes


def tables(outcomes: Sequence[Outcome], names: Sequence[str]) -> list[str]:
    parts = []
    for adversarial in (False, True):
        for kind in [None, *dict.fromkeys(o.kind for o in outcomes if o.adversarial == adversarial)]:
            of_kind = [o for o in outcomes if o.adversarial == adversarial and kind in (None, o.kind)]
            if not of_kind:
                continue
            title = f"{'adversarial' if adversarial else 'ordinary'} edits{f', {kind}' if kind else ''}"
            figures = ("answer", "old") if adversarial else ("exact_match", "similarity")
            rows = []
            for name in names:
                of_mode = [o for o in of_kind if o.mode == name]
                means = [
                    fmean(getattr(o, figure) for o in of_mode)
                    for figure in ("kl", "top1", "same_line", *figures, "encoded", "ms")
                ]
                rows.append([name, *(common.number(x, d) for x, d in zip(means, (4, 3, 3, 3, 3, 0, 0), strict=True))])
            header = [
                "mode",
                "KL",
                "top-1",
                "line",
                *(("answer", "old") if adversarial else ("EM", "ES")),
                "encoded",
                "ms",
            ]
            count = len(of_kind) // len(names)
            parts.append(f"## {title.capitalize()} ({count})\n\n{common.table(header, rows)}")
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", default="qwen2.5-coder-0.5b", help="as `unspool generate -m`")
    parser.add_argument("--backend", default="openvino", help="as `unspool generate --backend`")
    parser.add_argument("--limit", type=int, help="only the first source files")
    parser.add_argument("--refresh-tokens", type=int, nargs="+", default=[64, 256], help="sizes of the hybrid")
    parser.add_argument("--max-new-tokens", type=int, default=32, help="in which the line must be over; 32 by default")
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--markdown", type=Path, help="file for the tables")
    arguments = parser.parse_args()
    common.check_outputs(arguments.json, arguments.markdown)
    setting = about()
    options = modes(arguments.refresh_tokens)
    model = load(arguments.model, backend=arguments.backend, report=common.say)
    edit(model, "a b c d").replace(0, 0, "e ")  # the rotation is measured at the first edit of a model
    outcomes: list[Outcome] = []
    for case in cases(model, arguments.limit):
        base = edit(model, case.before, mode="recompute")
        outcomes += run(base, case, options, arguments.max_new_tokens)
        common.say(f"{case.module}, {case.kind}: {len(base.tokens)} tokens")
        base.close()
    settings = model.language_model.settings
    chosen = f"Model {model.name}, {settings['weights']}, {settings['backend']}."
    markdown = "\n\n".join(
        ("# Edits of a cached prompt", common.describe(setting), chosen, *tables(outcomes, list(options)))
    )
    results = {**setting, "chosen": chosen, "outcomes": [asdict(outcome) for outcome in outcomes]}
    common.publish(markdown, results, arguments.markdown, arguments.json)


if __name__ == "__main__":
    common.run(main)
