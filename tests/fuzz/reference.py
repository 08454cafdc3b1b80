"""Plain decoding again, by code that shares nothing with the engine: transformers' own list of logits processors on
float64 rows, a Philox generator and Gumbel noise written here, one token a step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig, GenerationMixin, LogitsProcessorList

Row = np.ndarray
BITS = 2**64 - 1

_SHAPING = ("repetition_penalty", "no_repeat_ngram_size", "bad_words_ids", "sequence_bias")
_WARPING = ("top_p", "min_p", "typical_p", "temperature")


def gumbel(seed: int, position: int, size: int) -> Row:
    """The noise of one position, as the documentation says it is made."""
    key = np.array([seed & BITS, position & BITS], dtype=np.uint64)
    raw = np.random.Philox(key=key).random_raw(size)
    uniform = ((raw >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    return -np.log(-np.log(uniform))


class Processors:
    """What transformers' ``generate`` makes of logits under some options.

    Args:
        options: by their names in both libraries; ``temperature`` 0 is greedy.
        prompt_length: in tokens.
        eos: ids that end a text.
        custom: more processors of transformers.
    """

    def __init__(
        self, options: Mapping[str, Any], prompt_length: int, eos: Sequence[int], custom: Sequence[Any] = ()
    ) -> None:
        greedy = options.get("temperature", 0) == 0
        given = {name: options[name] for name in _SHAPING if options.get(name)}
        if not greedy:
            given |= {name: options[name] for name in _WARPING if name in options}
            given["top_k"] = options.get("top_k", 0)
        config = GenerationConfig(do_sample=not greedy, eos_token_id=list(eos), **given)
        config._eos_token_tensor = torch.tensor(list(eos)) if eos else None
        merge = GenerationMixin._merge_criteria_processor_list
        model = SimpleNamespace(
            config=SimpleNamespace(is_encoder_decoder=False),
            _merge_criteria_processor_list=lambda *lists: merge(None, *lists),
        )
        self._list = GenerationMixin._get_logits_processor(
            model, config, input_ids_seq_length=prompt_length, logits_processor=LogitsProcessorList(custom)
        )

    def __call__(self, tokens: Sequence[int], row: Row) -> Row:
        """The shaped row [vocabulary], float64 computed in the row's own precision."""
        shaped = self._list(torch.tensor([list(tokens)]), torch.tensor(row[None].copy()))
        return shaped[0].numpy().astype(np.float64)


class NothingLeftError(Exception):
    """No token may follow."""


@dataclass
class Decoded:
    """What plain decoding gives."""

    tokens: list[int] = field(default_factory=list)
    reason: str = "length"
    logprobs: list[float] = field(default_factory=list)
    margins: list[float] = field(default_factory=list)

    def take(self, row: Row, scores: Row) -> int:
        """The best token of ``scores`` [vocabulary], noted with its log-probability under ``row``."""
        token = int(np.argmax(scores))
        ordered = np.sort(scores)
        self.margins.append(float(ordered[-1] - ordered[-2]))
        total = row.max() + math.log(np.exp(row - row.max()).sum())
        self.logprobs.append(float(row[token] - total))
        self.tokens.append(token)
        return token


def decode(
    logits: Callable[[Sequence[int]], Row],
    prompt: Sequence[int],
    processors: Processors,
    *,
    greedy: bool,
    seed: int,
    length: int,
    eos: Sequence[int],
    ends: Callable[[Sequence[int]], bool] = lambda tokens: False,
) -> Decoded:
    """One text.

    Args:
        logits: row after a text.
        ends: whether a stop string stands in the text of these output tokens.
    """
    out, tokens = Decoded(), list(prompt)
    for _ in range(length):
        row = processors(tokens, logits(tokens))
        if row.max() == -np.inf:
            raise NothingLeftError
        token = out.take(row, row if greedy else row + gumbel(seed, len(tokens), len(row)))
        tokens.append(token)
        if token in eos:
            out.reason = "stop"
            break
        if ends(out.tokens):
            out.reason = "stop_string"
            break
    return out


def z_of(seen: Mapping[Any, int], expected: Mapping[Any, float], draws: int) -> float:
    """How far counts are from an exact distribution, in standard deviations: chi-squared by Wilson and Hilferty (1931).

    inf for what cannot be drawn at all.
    """
    if any(output not in expected for output in seen):
        return math.inf
    cells = [(seen.get(key, 0), draws * p) for key, p in expected.items() if draws * p >= 8]
    rest = draws - sum(count for count, _ in cells), draws - sum(mean for _, mean in cells)
    cells += [rest] if rest[1] >= 4 else []
    freedom = len(cells) - 1
    if freedom < 1:
        return 0.0
    statistic = sum((count - mean) ** 2 / mean for count, mean in cells)
    return ((statistic / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / math.sqrt(2 / (9 * freedom))
