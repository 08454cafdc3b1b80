"""Toy models behind the public interface, rounding and faulty ones among them, and methods registered for a test."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from unspool import methods
from unspool.backends.toy import ToyModel, ToySession
from unspool.decoding.model import Model
from unspool.engine.contracts import Scores
from unspool.engine.cost import CostCurve, PassCosts
from unspool.engine.method import KINDS, NoOptions
from unspool.engine.taps import Taps
from unspool.engine.tree import TokenTree
from unspool.methods import Method

PROMPTS = ["0120120", "5", "2424", "1135", "33"]


class Digits:
    """A tokenizer whose tokens are digits."""

    has_chat_template = False

    def encode(self, text: str) -> list[int]:
        return [int(digit) for digit in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(str, ids))

    def context(self, prompt: Sequence[int], exact: bool = False) -> list[int]:
        return []

    def text(self, ids: Sequence[int], context: Sequence[int] = ()) -> str:
        return self.decode(ids)


class Counting(ToyModel):
    """A toy model that opens sessions of a given class and counts them."""

    session: type[ToySession] = ToySession
    opened = 0

    def open(self, taps: Taps | None = None) -> ToySession:
        self.opened += 1
        return self.session(self)


class Rounding(ToySession):
    """Logits that depend on the width of the pass and the node's place in it by up to 0.002, like rounding does."""

    def score(self, tree: TokenTree, rows: Sequence[int] | None = None) -> Scores:
        scores = super().score(tree, rows)
        if len(tree) > 1:
            for row, node in enumerate(scores.rows):
                rng = np.random.default_rng([len(tree), node, self.length])
                scores.logits[row] += 0.001 * rng.uniform(-1, 1, self.model.vocab_size)
        return scores


def toy(session: type[ToySession] = ToySession, near_ties: bool = False, eos: int | None = None) -> Model:
    """A model of 6 tokens; with ``near_ties`` its two best tokens are often 0.0005 apart."""
    table = ToyModel.random(vocab_size=6, order=2, seed=11).table.copy()
    if near_ties:
        flat = table.reshape(-1, 6)
        for row in flat[::4]:
            second, best = np.argsort(row)[-2:]
            row[[second, best]] = row[[second, best]].sum() / 2 * np.array([1 - 0.00025, 1 + 0.00025])
    made = Counting(table, eos)
    made.session = session
    model = Model("toy", "toy", made, Digits(), [] if eos is None else [eos])  # type: ignore[arg-type]
    model.assistant = Model("draft", "draft", ToyModel(table).related(0.7, seed=2), Digits(), ())  # type: ignore[arg-type]
    # A stated curve, so that auto drafts and no time is measured.
    model._costs = PassCosts(CostCurve((1, 4, 64), (32,), ((1.0, 1.0, 4.0),)))
    return model


@dataclass
class _Entry:
    """What ``importlib.metadata`` gives for an installed package's method."""

    name: str
    method: Method[Any, Any]
    value: str = "plugin:METHOD"
    module: str = __name__

    def load(self) -> Method[Any, Any]:
        return self.method


Install = Callable[..., None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Registers methods as an installed package would."""

    def do(*rows: Method[Any, Any]) -> None:
        monkeypatch.setattr(methods, "entry_points", lambda group: [_Entry(row.name, row) for row in rows])
        methods.forget()

    yield do
    monkeypatch.undo()
    methods.forget()


def method(name: str, kind: Any, guarantee: Any, build: Callable[[], Any]) -> Method[Any, Any]:
    """A row of the registry without options."""
    return Method(KINDS[kind], guarantee, "planted", "none", NoOptions, lambda *_: build(), name=name)
