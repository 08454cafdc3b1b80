"""Editing a cached prompt far before the cursor: PIE and its hybrid against recomputation and conflict encoding.

Prompts are sources of installed packages (``pie_edits``). Ordinary edits insert a function, take one out, or rename a
local name; adversarial ones change a definition that the next token depends on, where PIE is expected to give the
answer of the text before the edit.

- KL: divergence of the next token's distribution from that after recomputation; top-1: share of edits with the same
  likeliest token.
- line: share of edits after which the greedy next line is that of recomputation; EM and ES: next line against the true
  one, equal or similar (difflib's ratio, 0 to 100).
- answer: edits after which the line begins with what the definition now says. Recomputation, which is exact, misses
  some of them too; that is the model's failure, not the cache's, and is told as its own.
- failed: of the edits that recomputation answers rightly, those that the mode does not; with Wilson's 95 % interval.
  "old": of these, those after which the line is still the one of the text before the edit. An edit can only fail so if
  the model's line depends on it: "decisive" are those where recomputation is right and the line before was another one.
- encoded: tokens that went through the model.

Nothing is timed. With --json an interrupted run goes on where it ended; --limit may change.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from copy import copy
from difflib import SequenceMatcher
from pathlib import Path
from statistics import fmean
from typing import Any

import common
import numpy as np
from numpy.typing import NDArray
from pie_edits import MODULES, Case, adversarial, ordinary

from unspool.bench.about import about
from unspool.decoding.edit import EditableText
from unspool.decoding.load import load
from unspool.engine.numeric import log_softmax
from unspool.engine.tree import TokenTree
from unspool.methods.cache.edit import PieOptions
from unspool.storage.journal import Journal

Outcome = dict[str, Any]
"""One edit in one mode."""


def modes(sizes: Sequence[int], adversarial: bool) -> dict[str, PieOptions]:
    """Recomputation first: the others are compared with it."""
    found = {name: PieOptions(name) for name in ("recompute", *(() if adversarial else ("conflict",)), "pie")}
    for refresh in ("names",) if adversarial else ("last", "names"):
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
            {
                "module": case.module,
                "kind": case.kind,
                "mode": mode,
                "kl": float((np.exp(true) * (true - row)).sum()),
                "top1": bool(row.argmax() == true.argmax()),
                "same_line": text == line,
                "exact_match": text == case.line,
                "similarity": 100 * SequenceMatcher(None, text, case.line, autojunk=False).ratio(),
                "answer": text.startswith(case.line),
                "decisive": line.startswith(case.line) and line != line_before,
                "old": text == line_before != line,
                "encoded": done.encoded,
                "line": text,
            }
        )
        editor.close()
    return outcomes


def of_kinds(outcomes: Sequence[Outcome], names: Sequence[str]) -> Iterator[tuple[str, int, list[list[Outcome]]]]:
    """All edits and each kind: title, number of edits, and the outcomes by mode."""
    for kind in [None, *dict.fromkeys(o["kind"] for o in outcomes)]:
        found = [[o for o in outcomes if kind in (None, o["kind"]) and o["mode"] == name] for name in names]
        yield kind or "all", len(found[0]), found


def ordinary_tables(outcomes: Sequence[Outcome], names: Sequence[str]) -> list[str]:
    parts = []
    figures = {"KL": ("kl", 4), "top-1": ("top1", 3), "line": ("same_line", 3), "EM": ("exact_match", 3)}
    figures |= {"ES": ("similarity", 3), "encoded": ("encoded", 0)}
    for kind, count, by_mode in of_kinds(outcomes, names):
        rows = [
            [name, *(common.number(fmean(o[key] for o in found), digits) for key, digits in figures.values())]
            for name, found in zip(names, by_mode, strict=True)
        ]
        parts.append(f"## Ordinary edits, {kind} ({count})\n\n{common.table(('mode', *figures), rows)}")
    return parts


def adversarial_tables(outcomes: Sequence[Outcome], names: Sequence[str]) -> list[str]:
    parts = []
    header = ("mode", "answer", "95 %", "failed", "95 %", "failed of decisive", "old", "KL", "encoded")
    for kind, count, by_mode in of_kinds(outcomes, names):
        exact = by_mode[0]
        rows = []
        for name, found in zip(names, by_mode, strict=True):
            right = sum(o["answer"] for o in found)
            pairs = [(o, e) for o, e in zip(found, exact, strict=True) if e["answer"]]
            failed = [o for o, _ in pairs if not o["answer"]]
            decisive = [o for o, _ in pairs if o["decisive"]]
            cells = [f"{right} of {count}", common.interval(*common.wilson(right, count))]
            if name == names[0] or not pairs:
                cells += ["–"] * 4
            else:
                cells += [f"{len(failed)} of {len(pairs)}", common.interval(*common.wilson(len(failed), len(pairs)))]
                cells += [f"{sum(not o['answer'] for o in decisive)} of {len(decisive)}"]
                cells += [str(sum(o["old"] for o in failed))]
            mean = [common.number(fmean(o[key] for o in found), digits) for key, digits in (("kl", 4), ("encoded", 0))]
            rows.append([name, *cells, *mean])
        parts.append(f"## Adversarial edits, {kind} ({count})\n\n{common.table(header, rows)}")
    return parts


def told(outcomes: Sequence[Outcome], names: Sequence[str]) -> str:
    """What the adversarial figures say, in words that they give."""
    by_mode = {name: [o for o in outcomes if o["mode"] == name] for name in names}
    exact = [float(o["answer"]) for o in by_mode[names[0]]]
    missed = int(len(exact) - sum(exact))
    lines = [f"- {names[0]} itself misses {missed} of {len(exact)}: there the model does not follow the definition."]
    for name in names[1:]:
        mean, low, high = common.difference([float(o["answer"]) for o in by_mode[name]], exact)
        said = common.verdict(name, names[0], low, high)
        lines.append(f"- answers of {name} less {names[0]}: {mean:+.3f} ({common.interval(low, high)}): {said}.")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", default="qwen2.5-coder-0.5b", help="as `unspool generate -m`")
    parser.add_argument("--backend", default="openvino", help="as `unspool generate --backend`")
    parser.add_argument("--threads", type=int, help="as `unspool generate --threads`")
    parser.add_argument("--adversarial", action="store_true", help="adversarial edits instead of ordinary ones")
    parser.add_argument("--limit", type=int, help="only the first source files")
    parser.add_argument("--refresh-tokens", type=int, nargs="+", default=[64, 256], help="sizes of the hybrid")
    parser.add_argument("--max-new-tokens", type=int, default=32, help="in which the line must be over; 32 by default")
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--markdown", type=Path, help="file for the tables")
    arguments = parser.parse_args()
    common.check_outputs(arguments.json, arguments.markdown)
    setting = about()
    options = modes(arguments.refresh_tokens, arguments.adversarial)
    model = load(arguments.model, backend=arguments.backend, report=common.say, threads=arguments.threads)
    settings = model.language_model.settings
    header = {key: getattr(arguments, key) for key in ("model", "backend", "adversarial", "max_new_tokens")}
    header |= {"modes": list(options), "weights": settings["weights"]}
    file = arguments.json and arguments.json.with_name(f"{arguments.json.name}.partial.jsonl")
    journal = Journal(file, header, "--json")
    known = {(line["module"], line["kind"]): line["outcomes"] for line in journal.lines}
    outcomes: list[Outcome] = []
    modules = set()
    for case in (adversarial if arguments.adversarial else ordinary)(model, arguments.limit):
        if (case.module, case.kind) not in known:
            base = model.edit(case.before, mode="recompute")
            found = run(base, case, options, arguments.max_new_tokens)
            journal.add({"module": case.module, "kind": case.kind, "outcomes": found})
            known[case.module, case.kind] = found
            common.say(f"{case.module}, {case.kind}: {len(base.tokens)} tokens")
            base.close()
        outcomes += known[case.module, case.kind]
        modules.add(case.module)
    chosen = f"Model {model.name}, {settings['weights']}, {settings['backend']}; {len(modules)} source files. "
    chosen += "Nothing here was timed."
    names = list(options)
    parts = [told(outcomes, names), *adversarial_tables(outcomes, names)] if arguments.adversarial else []
    parts = parts or ordinary_tables(outcomes, names)
    kind = "adversarial edits" if arguments.adversarial else "ordinary edits"
    markdown = "\n\n".join((f"# Edits of a cached prompt: {kind}", common.describe(setting), chosen, *parts))
    results = {**setting, "chosen": chosen, "options": header, "outcomes": outcomes}
    common.publish(markdown, results, arguments.markdown, arguments.json)
    if len(modules) == len(MODULES):
        journal.remove()


if __name__ == "__main__":
    common.run(main)
