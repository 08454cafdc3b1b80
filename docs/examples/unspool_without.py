"""An example of a third-party constraint (no paper): a text is never written.

Changes about plain decoding: tokens that would complete the text are masked. Guarantee: valid. Left out: regular
expressions, for which there is ``grammar``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unspool.engine.method import CONSTRAINT, BeginConstraint, Case, Method, Needs
from unspool.engine.option import Options
from unspool.methods import Resources

if TYPE_CHECKING:
    from unspool.decoding.model import Model

JUDGE = "Python's in"


@dataclass(frozen=True)
class WithoutOptions(Options):
    """Options of ``without``.

    Attributes:
        text: that is never written.
    """

    text: str = "e"


class Without:
    """One object for each sequence: ``advance`` moves it, and what ``allowed`` asks leaves no trace."""

    def __init__(self, text: str, pieces: Sequence[str]) -> None:
        self._text = text
        self._pieces = pieces
        self._written = ""

    def allowed(self, path: Sequence[int]) -> NDArray[np.bool_]:
        before = self._written + "".join(self._pieces[token] for token in path)
        return np.array([self._text not in before[-len(self._text) :] + piece for piece in self._pieces])

    def forced(self) -> Sequence[int]:
        return ()

    def advance(self, tokens: Sequence[int]) -> None:
        self._written += "".join(self._pieces[token] for token in tokens)


def build(resources: Resources, options: WithoutOptions) -> BeginConstraint:
    assert resources.tokenizer is not None  # see Needs
    pieces = [resources.tokenizer.decode([token]) for token in range(resources.model.vocab_size)]
    return lambda prompt: Without(options.text, pieces)


def outcomes(model: Model, options: Mapping[str, Any]) -> Iterator[tuple[bool | None, int]]:
    """What ``unspool prove`` asks: of some texts, whether each is valid, and its number of tokens."""
    for prompt in ("in.count", "x=index"):
        result = model.generate(prompt, constraint="without", **options)
        yield WithoutOptions().text not in result.text, len(result.token_ids)


METHOD = Method(
    kind=CONSTRAINT,
    guarantee="valid",
    summary="Never writes a text.",
    paper="none",
    options=WithoutOptions,
    build=build,
    needs=Needs(tokenizer=True),
    validity="unspool_without",
    case=Case({"text": "e="}),
)
