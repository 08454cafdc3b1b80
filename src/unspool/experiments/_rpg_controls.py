"""Controls of rpg: the rule of its authors' code, and the same changes at random places."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from unspool.engine.contracts import Logits
from unspool.methods.shaping import rpg
from unspool.methods.shaping.rpg import structure


class AsCoded(rpg.RPG):
    """The rule of the authors' code, as far as it differs from the paper's; symbols and critical tokens are ours.

    It multiplies logits, not probabilities, counts every structural repetition as the first, compares whole lines, and
    only where their number is a multiple of the block's.
    """

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
    """A shaper that notes what it took from a token and gave to the end of the text at each step, in nats."""

    def __init__(self, shaper: Any, prompt: int, eos: frozenset[int]) -> None:
        self._shaper, self._prompt, self._eos = shaper, prompt, sorted(eos)
        self.steps: dict[int, tuple[float, float]] = {}

    def __call__(self, tokens: Any, logits: Logits) -> Logits:
        shaped: Logits = self._shaper(tokens, logits)
        if shaped is not logits:
            change = shaped - logits
            taken, given = max(0.0, -float(change.min())), max(0.0, float(change[self._eos].max()))
            self.steps[len(tokens) - self._prompt] = (taken, given)
        return shaped


class Anywhere:
    """Takes the same from the most likely token, and gives the same to the end of the text, at given steps."""

    def __init__(self, steps: dict[int, tuple[float, float]], prompt: int, eos: frozenset[int]) -> None:
        self._steps, self._prompt, self._eos = steps, prompt, sorted(eos)

    def __call__(self, tokens: Any, logits: Logits) -> Logits:
        taken, given = self._steps.get(len(tokens) - self._prompt, (0.0, 0.0))
        shaped: Logits = logits.copy()
        shaped[shaped.argmax()] -= taken
        shaped[self._eos] += given
        return shaped
