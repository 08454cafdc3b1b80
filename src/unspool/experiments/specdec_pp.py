"""SpecDec++: a draft whose end is decided by a trained head wastes less than one of fixed length.

A head is trained for the pair of models on separate prompts. Then each rule for ending a draft is replayed along the
target's greedy texts, which gives its drafts and passes. The resulting speed, for a draft model ten times as fast as
its target, decides. Each rule's setting is chosen on one half of the texts and measured on the other. Not tested:
sampled texts, time on this machine, and the paper's amount of training (40,000 prompts).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from unspool.experiments._assistant import with_draft
from unspool.experiments._drafting import decode_with
from unspool.experiments._replay import Rule, Text, draft_along, fixed, product, replay, trained, until
from unspool.methods import PLAIN
from unspool.methods.drafters.specdec_pp import SpecDecPP, SpecDecPPOptions
from unspool.methods.drafters.specdec_pp.data import DataOptions
from unspool.methods.drafters.specdec_pp.head import AcceptanceHead
from unspool.methods.drafters.specdec_pp.train import TrainingOptions, auc, train
from unspool.reproduce.experiment import Case, Expect, Experiment, Figure, Row, Summary, Table
from unspool.reproduce.setup import Setup
from unspool.reproduce.statistics import difference, ratio_of_ratios
from unspool.suites.prompts import Prompt
from unspool.training.artifact import Artifact

SPEED = 10
"""How many times as fast as the target the draft model is taken to be."""

OURS, FIXED, PRODUCT, NEWEST, ENTROPY = "specdec_pp", "fixed", "product of q", "newest q", "entropy"
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
RULES: dict[str, dict[str, Rule]] = {
    FIXED: {str(k): fixed(k) for k in range(1, 13)},
    OURS: {str(h): trained(h) for h in THRESHOLDS},
    PRODUCT: {str(h): product(h) for h in THRESHOLDS},
    NEWEST: {str(h): until(lambda chain, h=h: chain[-1].q < h) for h in THRESHOLDS},  # type: ignore[misc]
    ENTROPY: {str(e): until(lambda chain, e=e: chain[-1].entropy > e) for e in (0.25, 0.5, 1.0, 1.5, 2.0, 3.0)},  # type: ignore[misc]
}
REPLAYED = Expect("passes of the engine / replayed", at_least=0.97, at_most=1.03)
"""Not exactly 1: where a section of the cache ends, the backend cuts a draft, which may cost a pass."""

IDENTICAL = Expect("texts identical to plain decoding's", at_least=1)


class TrainedHead:
    """A head, trained when it is first asked for, in a directory that goes with the process."""

    def __init__(self, setup: Setup, prompts: Sequence[Prompt]) -> None:
        self._setup = setup
        self._prompts = prompts
        self._directory: TemporaryDirectory[str] | None = None

    def path(self) -> Path:
        """The directory of the head."""
        if self._directory is None:
            model, *_ = with_draft(self._setup)
            self._directory = TemporaryDirectory()
            data = DataOptions(max_new_tokens=self._setup.pick(64, 8), temperature=0.0)
            options = TrainingOptions(learning_rate=1e-3, num_train_epochs=10, batch_size=8)
            train(model, [prompt.text for prompt in self._prompts], Path(self._directory.name), data, options)
        return Path(self._directory.name)


def cases(setup: Setup) -> list[Case]:
    """A case is a prompt; the head is trained on two others for each of them."""
    prompts = replace(setup, count=3 * setup.count).prompts()
    measured = prompts[: setup.count]
    head = TrainedHead(setup, prompts[setup.count :])

    def measure(prompt: Prompt, part: str) -> list[Row]:
        model, draft, size = with_draft(setup)
        length = setup.pick(64, 8)
        ids = model.encode(prompt.text)
        output = model.generate(ids, method=PLAIN, max_new_tokens=length).token_ids
        trained_head = AcceptanceHead(Artifact.load(head.path(), "specdec_pp"))
        text = draft_along(draft, size, ids, output, trained_head)
        options = SpecDecPPOptions(head=str(head.path()))
        plain, decoded = (
            decode_with(model, drafter, prompt, length)
            for drafter in (PLAIN, SpecDecPP(options, draft, size, trained_head))
        )
        row = {
            "part": part,
            "tokens": len(output),
            "wrong": sum(not text.right(at) for at in range(len(output))),
            "identical": plain["digest"] == decoded["digest"],
            "passes": [decoded["passes"], replay(text, trained(options.stop_threshold))[1]],
            "auc": foresight(text),
        }
        for family, rules in RULES.items():
            row[family] = {name: replay(text, rule) for name, rule in rules.items()}
        return [row]

    return [Case(p.id, partial(measure, p, ("choose", "test")[i % 2])) for i, p in enumerate(measured)]


def foresight(text: Text) -> list[float | None]:
    """Areas under the ROC curve of accepted against rejected tokens, by the head, then by q."""
    right = np.array([text.right(at) for at in range(len(text.output))], dtype=np.float64)
    return [auc(np.array([getattr(c, name) for c in text.drafted]), right) for name in ("head", "q")]


def times(rows: Sequence[Row], family: str, setting: str) -> list[float]:
    """Of each text, in passes of the target."""
    return [row[family][setting][1] + row[family][setting][0] / SPEED for row in rows]


def summarise(rows: Sequence[Row]) -> Summary:
    """Speeds on the texts that no setting was chosen on, paired by text."""
    choose, test = ([row for row in rows if row["part"] == part] for part in ("choose", "test"))
    best = {family: min(rules, key=lambda s: sum(times(choose, family, s))) for family, rules in RULES.items()}
    tokens = [row["tokens"] for row in test]
    spent = {family: times(test, family, setting) for family, setting in best.items()}
    passes = [sum(row["passes"][i] for row in rows) for i in (0, 1)]
    both = [row["auc"] for row in rows if None not in row["auc"]]
    figures = {
        IDENTICAL.figure: Figure(sum(row["identical"] for row in rows) / len(rows), count=len(rows)),
        REPLAYED.figure: Figure(passes[0] / passes[1], count=len(rows)),
        "AUC of the head less that of q": difference([a for a, _ in both], [b for _, b in both]),
    }
    figures |= {
        f"speed, specdec_pp / {family}": ratio_of_ratios(tokens, spent[OURS], tokens, spent[family])
        for family in RULES
        if family != OURS
    }
    total = sum(tokens)
    lines = []
    for family, setting in best.items():
        drafted, steps = (sum(row[family][setting][i] for row in test) for i in (0, 1))
        discarded = drafted - (total - steps)
        rates = (discarded / total, steps / total, total / sum(spent[family]))
        lines.append((f"{family} {setting}", *(f"{rate:.3f}" for rate in rates)))
    return Summary(figures, [Table("", ("rule", "discarded/token", "passes/token", "speed"), lines)])


EXPERIMENT = Experiment(
    methods=("specdec_pp",),
    claim="A draft that ends when a trained head expects a rejection costs less than drafts of the best fixed length.",
    control="the best fixed length; rules without training: product of the draft's probabilities, probability and "
    "entropy of the newest token",
    test=f"rules replayed along greedy texts, for a draft model {SPEED} times as fast; the model's own int4 weights "
    "draft, functions of HumanEval; a head trained on 2 prompts for each that is measured",
    cases=cases,
    summarise=summarise,
    requires=[IDENTICAL, REPLAYED],
    expects=[
        Expect(f"speed, specdec_pp / {FIXED}", at_least=1, cases=10),
        Expect(f"speed, specdec_pp / {PRODUCT}", at_least=1, cases=10),
        Expect(f"speed, specdec_pp / {NEWEST}", at_least=1, cases=10),
    ],
    model="smollm2-135m",
    count=40,
    minutes=15,
)
