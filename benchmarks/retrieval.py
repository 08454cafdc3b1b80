"""RASD's own claims, measured: retrieval and a drafter in one tree, at an equal number of nodes.

Prompts and datastore come from the Python files of the standard library, by rule. Files that prompts are taken from
are not in the datastore, so nothing is answered by copying the answer.

- edit: rename a parameter of a function of the prompt. Much is copied from the prompt.
- continue: go on with a file after its first lines. Some is to be found in other files of the library.
- question: what a module is for. Neither.

Arms, all of at most NODES drafted nodes: the drafter alone; retrieval alone (prompt and datastore); the union of both
without pruning; RASD; RASD that trusts long matches; either retrieval or the drafter, by the length of the match. Each
starts with an empty memory, which stays from prompt to prompt. Every text must be plain decoding's, to the last token.

"right pruned": of the retrieved branches that began with the right token, how many pruning dropped.
"""

from __future__ import annotations

import argparse
import ast
import sysconfig
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import common
import numpy as np

from unspool import methods
from unspool.bench.about import about
from unspool.decoding.load import load
from unspool.decoding.model import Model
from unspool.engine.autoregressive import Request, decode
from unspool.engine.contracts import Context, Drafter, Memory, Step
from unspool.engine.method import DRAFTER
from unspool.engine.options import GenerationOptions
from unspool.engine.statistics import Statistics, summarise
from unspool.engine.trace import StepEvent
from unspool.engine.tree import TokenTree
from unspool.errors import UnspoolError
from unspool.methods.acceptance._follow import Follow
from unspool.methods.drafters._datastore import Datastore
from unspool.methods.drafters.plain import Plain
from unspool.methods.drafters.rasd import RASD, Branch, RASDOptions

LONG = 5  # tokens of a match that either-or routing takes retrieval for, as SAM-Decoding
TRUSTED = 8
CONTEXT_LINES = 60
_SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__"}


class Limited:
    """A drafter of at most ``nodes`` drafted nodes."""

    def __init__(self, drafter: Drafter, nodes: int) -> None:
        self._drafter = drafter
        self._nodes = nodes

    def start(self, context: Context) -> None:
        self._drafter.start(context)

    def propose(self, context: Context, budget: int) -> TokenTree:
        return self._drafter.propose(context, min(budget, self._nodes + 1))

    def observe(self, step: Step) -> None:
        self._drafter.observe(step)


class EitherOr:
    """Retrieval where the match is long, else the drafter."""

    def __init__(self, retrieval: RASD, drafter: Drafter) -> None:
        self._parts = (retrieval, drafter)

    def start(self, context: Context) -> None:
        for part in self._parts:
            part.start(context)

    def propose(self, context: Context, budget: int) -> TokenTree:
        retrieval, drafter = self._parts
        tree = retrieval.propose(context, budget)
        return tree if max(tree.buckets) >= LONG else drafter.propose(context, budget)

    def observe(self, step: Step) -> None:
        for part in self._parts:
            part.observe(step)


@dataclass
class Arm:
    """One way to draft, and what came of it by kind of prompt."""

    name: str
    make: Callable[[methods.Resources], Drafter]
    memories: dict[str, Memory] = field(default_factory=dict)
    statistics: dict[str, list[Statistics]] = field(default_factory=dict)
    forwards: Counter[str] = field(default_factory=Counter)
    branches: dict[str, Counter[Branch]] = field(default_factory=dict)
    identical: int = 0

    def row(self, kind: str) -> list[str]:
        runs = self.statistics[kind]
        tokens, passes = (sum(getattr(run, name) for run in runs) for name in ("tokens", "passes"))
        nodes, seconds = (sum(getattr(run, name) for run in runs) for name in ("nodes", "decode_seconds"))
        right = {
            pruned: sum(n for branch, n in self.branches[kind].items() if branch.right and branch.pruned == pruned)
            for pruned in (True, False)
        }
        return [
            common.number(tokens / passes),
            common.number(nodes / passes, 1),
            common.number(nodes / tokens, 1),
            common.number(self.forwards[kind] / tokens),
            f"{right[True]} of {sum(right.values())}" if any(right.values()) else "–",
            common.number(tokens / seconds, 1),
        ]


def arms(inner: str, datastore: Datastore, nodes: int) -> list[Arm]:
    """Plain decoding first."""
    half = RASDOptions(nodes=nodes, retrieved_nodes=max(1, nodes // 2))

    def drafter(around: methods.Resources) -> Drafter:
        return Limited(methods.build(inner, DRAFTER, around), nodes)

    def rasd(around: methods.Resources, options: RASDOptions) -> RASD:
        return RASD(options, methods.build(inner, DRAFTER, around), datastore)

    def retrieval(around: methods.Resources) -> RASD:
        return RASD(RASDOptions(nodes=nodes, retrieved_nodes=nodes), Plain(), datastore)

    def variant(**values: int) -> Callable[[methods.Resources], Drafter]:
        return partial(rasd, options=RASDOptions(**{**vars(half), **values}))

    return [
        Arm("plain", lambda around: Plain()),
        Arm(f"{inner} alone", drafter),
        Arm("retrieval alone", retrieval),
        Arm("union, no pruning", variant(prune_top_k=0)),
        Arm("rasd", variant()),
        Arm(f"rasd, {TRUSTED} trusted", variant(trusted_match=TRUSTED)),
        Arm(f"either, {LONG} or more", lambda around: EitherOr(retrieval(around), drafter(around))),
    ]


@dataclass(frozen=True)
class Task:
    """A prompt. Files are continued as they stand, the others are put to the chat template."""

    kind: str
    text: str


def library() -> list[Path]:
    """The standard library's Python files, sorted."""
    root = Path(sysconfig.get_paths()["stdlib"])
    return [file for file in sorted(root.rglob("*.py")) if not _SKIPPED & set(file.relative_to(root).parts)]


def tasks(files: list[Path], count: int) -> tuple[list[Task], set[Path]]:
    """``count`` prompts of each kind from files drawn with seed 0, and those files."""
    made: dict[str, list[Task]] = {"edit": [], "continue": [], "question": []}
    used: set[Path] = set()
    for i in np.random.default_rng(0).permutation(len(files)):
        source = files[i].read_text("utf-8")
        functions = renamed(source)
        lines = source.splitlines(keepends=True)
        if len(lines) < 4 * CONTEXT_LINES or not functions or files[i].stem.startswith("_"):
            continue
        used.add(files[i])
        made["edit"].append(Task("edit", functions[0]))
        made["continue"].append(Task("continue", "".join(lines[:CONTEXT_LINES])))
        question = f"What is Python's module `{files[i].stem}` for? Explain it to a beginner in a few sentences."
        made["question"].append(Task("question", question))
        if len(used) == count:
            return [task for kind in made.values() for task in kind], used
    raise UnspoolError(f"the standard library has only {len(used)} files that make prompts; ask for fewer --prompts")


def renamed(source: str) -> list[str]:
    """Requests to rename the last parameter of each function of 10 to 25 lines."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.end_lineno and 10 <= node.end_lineno - node.lineno < 25:
            names = [argument.arg for argument in node.args.args if argument.arg != "self"]
            text = ast.get_source_segment(source, node)
            if names and text:
                old = names[-1]
                found.append(
                    f"Rename the parameter `{old}` to `new_{old}` in this function. Answer with the whole function.\n\n"
                    f"```python\n{text}\n```"
                )
    return found


def run(model: Model, arm: Arm, task: Task, ids: list[int], max_new_tokens: int) -> list[int]:
    """Decode one prompt; the figures go to the arm."""
    drafter = arm.make(model.resources(arm.memories))
    request = Request(ids, drafter, Follow(), GenerationOptions(max_new_tokens=max_new_tokens), eos=model.eos_token_ids)
    events = list(decode(model.language_model, [request]))
    steps = [event for event in events if isinstance(event, StepEvent)]
    arm.statistics.setdefault(task.kind, []).append(summarise(events))
    # The draft model's chain costs it one pass a node.
    arm.forwards[task.kind] += sum(step.sources.count("draft_model") for step in steps)
    arm.branches.setdefault(task.kind, Counter()).update(getattr(drafter, "branches", {}))
    return [token for step in steps for token in step.emitted]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", default="qwen2.5-coder-0.5b", help="as `unspool generate -m`")
    parser.add_argument("--assistant-model", help="draft model, for --drafter draft_model")
    parser.add_argument("--drafter", default="token_recycling", help="inner drafter; token_recycling by default")
    parser.add_argument("--nodes", type=int, default=12, help="drafted nodes of a tree; 12 by default")
    parser.add_argument("--prompts", type=int, default=8, help="of each kind; 8 by default")
    parser.add_argument("--files", type=int, help="most files of the datastore; all by default")
    parser.add_argument("--max-new-tokens", type=int, default=128, help="128 by default")
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--markdown", type=Path, help="file for the table")
    arguments = parser.parse_args()
    common.check_outputs(arguments.json, arguments.markdown)
    setting = about()
    files = library()
    chosen, used = tasks(files, arguments.prompts)
    model = load(arguments.model, assistant_model=arguments.assistant_model, report=common.say)
    corpus = [file for file in files if file not in used][: arguments.files]
    common.say(f"building a datastore of {len(corpus)} files")
    encode = partial(model.tokenizer.encode, add_special_tokens=False)
    datastore = Datastore.from_sequences(encode(file.read_text("utf-8")) for file in corpus)
    contestants = arms(arguments.drafter, datastore, arguments.nodes)
    for i, task in enumerate(chosen, 1):
        ids = model.encode(task.text, chat=False if task.kind == "continue" else None)
        texts = [run(model, arm, task, ids, arguments.max_new_tokens) for arm in contestants]
        for arm, text in zip(contestants, texts, strict=True):
            arm.identical += text == texts[0]
        common.say(f"prompt {i} of {len(chosen)}")
    columns = ["arm", "prompts", "tokens/pass", "nodes/pass", "nodes/token", "draft passes/token", "right pruned"]
    columns += ["tokens/s", "identical"]
    kinds = list(dict.fromkeys(task.kind for task in chosen))
    rows = [
        [arm.name, kind, *arm.row(kind), f"{arm.identical} of {len(chosen)}"] for kind in kinds for arm in contestants
    ]
    told = f"Model {model.name}, {model.language_model.settings['weights']}; drafter {arguments.drafter}; "
    told += f"{arguments.nodes} nodes; datastore of {len(datastore)} tokens from {datastore.count} files; "
    told += f"{arguments.prompts} prompts a kind, max_new_tokens {arguments.max_new_tokens}. Nodes include the root, "
    told += "accepted tokens the bonus token."
    markdown = "\n\n".join(("# RASD", common.describe(setting), told, common.table(columns, rows)))
    results = {**setting, "chosen": told, "rows": [dict(zip(columns, row, strict=True)) for row in rows]}
    common.publish(markdown, results, arguments.markdown, arguments.json)
    return 1 if any(arm.identical < len(chosen) for arm in contestants) else 0


if __name__ == "__main__":
    common.run(main)
