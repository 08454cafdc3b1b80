"""unspool's loop inside transformers: ``model.generate(**inputs, custom_generate=unspool.transformers_method(...))``.

transformers prepares the call as usual (generation config, logits processors, stopping criteria, padding) and passes it
to the callable, which decodes with a method of unspool's registry on the same weights. Greedy text equals that of
``generate`` itself. Sampling uses unspool's noise, so it has the same distribution and is reproducible by seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, StoppingCriteriaList
from transformers.generation import (
    EncoderNoRepeatNGramLogitsProcessor,
    EncoderRepetitionPenaltyLogitsProcessor,
    EosTokenCriteria,
    GenerateDecoderOnlyOutput,
    GenerationMode,
    MaxLengthCriteria,
    PrefixConstrainedLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
)

from unspool import methods
from unspool.backends.torch.model import TransformersModel
from unspool.decoding.generate import assemble
from unspool.engine.autoregressive import Request, decode
from unspool.engine.contracts import Drafter, LanguageModel, Logits, Memory
from unspool.engine.cost import PassCosts
from unspool.engine.method import DRAFTER, check_assisted
from unspool.engine.options import GenerationOptions
from unspool.engine.trace import EndEvent, Event, FinishReason, StepEvent
from unspool.errors import UnspoolError, UnsupportedError
from unspool.methods import Chosen
from unspool.methods.shaping._built_in import adapt
from unspool.models import calibration

_CACHES = {"cache", "past_key_values"}
"""transformers' names of its cache, since 5.24 and before."""

_HARMLESS = {"attention_mask", "position_ids", "use_cache", "logits_to_keep", *_CACHES}
"""Arguments that ``generate`` passes besides the ids: read or checked here, or without effect on the text."""

_ROW_DEPENDENT = (
    EncoderNoRepeatNGramLogitsProcessor,
    EncoderRepetitionPenaltyLogitsProcessor,
    PrefixConstrainedLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
)
"""transformers' own processors that treat the rows of a batch differently."""


def transformers_method(
    method: Any = methods.DEFAULTS[DRAFTER],
    *,
    acceptance: Any = None,
    seed: int | None = None,
    streamer: Any = None,
    memories: dict[str, Memory] | None = None,
    assistant_model: PreTrainedModel | None = None,
) -> TransformersMethod:
    """A callable for the ``custom_generate`` argument of transformers' ``generate``.

    ``generate`` passes neither its ``streamer`` nor its ``tokenizer`` to the callable. So give the streamer here, and
    replace ``stop_strings`` by ``stopping_criteria=[StopStringCriteria(tokenizer, strings)]``.

    Args:
        method: a drafter with its options, such as ``"token_recycling:nodes=8"``; ``"auto"`` measures the cost curve on
            first use (10 s, cached).
        acceptance: an acceptance rule; by default ``greedy``, or ``same_noise`` with ``do_sample=True``.
        seed: of the noise with ``do_sample=True``; row ``i`` of a batch uses ``seed + i``. None: drawn from torch's
            generator, so that ``torch.manual_seed`` controls it.
        streamer: object with ``put`` and ``end``; receives the prompt, then each token, as from ``generate``.
        memories: what methods learn, by method name, kept between calls; by default the callable's own.
        assistant_model: draft model with the same tokenizer, for methods that need one. Given here, because passing it
            to ``generate`` selects transformers' own assisted generation.

    Raises:
        UnknownNameError: for an unknown method or option.
        UnsupportedError: for a method that needs a draft model if none is given.
    """
    chosen = methods.choose(method, DRAFTER)
    check_assisted(chosen.row, assistant_model)
    return TransformersMethod(chosen, acceptance, seed, streamer, memories, assistant_model)


class TransformersMethod:
    """The return value of ``transformers_method``. Keeps the last model and what was learned on it between calls.

    Attributes:
        trace: all events of the last call.
    """

    def __init__(
        self,
        method: Chosen[Drafter],
        acceptance: str | None,
        seed: int | None,
        streamer: Any,
        memories: dict[str, Memory] | None,
        assistant: PreTrainedModel | None,
    ) -> None:
        self.trace: list[Event] = []
        self._method = method
        self._acceptance = acceptance
        self._seed = seed
        self._streamer = streamer
        self._memories = memories
        self._assistant = TransformersModel.from_pretrained_model(assistant) if assistant is not None else None
        self._model: PreTrainedModel | None = None
        self._resources: methods.Resources | None = None

    def __call__(
        self,
        model: PreTrainedModel,
        input_ids: torch.Tensor,
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        **model_kwargs: Any,
    ) -> Any:
        """Called by ``generate``.

        Returns:
            Ids [batch, longest text], left-padded like the input and right-padded with ``pad_token_id``; or, with
            ``return_dict_in_generate``, a ``GenerateDecoderOnlyOutput`` whose ``past_key_values`` is None and whose
            ``scores`` and ``logits``, if requested, are 0 in finished rows.

        Raises:
            UnsupportedError: for an unsupported generation mode, model input or output.
            UnspoolError: for an invalid request, before any work.
        """
        _refuse(generation_config, model_kwargs)
        adapt(logits_processor)  # rejects processors that cannot work on drafts
        resources = self._on(model)
        padded = [[int(token) for token in row] for row in input_ids.tolist()]
        starts = _starts(input_ids, model_kwargs)
        eos = [int(i) for c in stopping_criteria if isinstance(c, EosTokenCriteria) for i in c.eos_token_id.tolist()]
        others = StoppingCriteriaList(
            c for c in stopping_criteria if type(c) not in (EosTokenCriteria, MaxLengthCriteria)
        )
        pad = generation_config.pad_token_id
        pad = pad if pad is not None else next(iter(eos), None)
        if len(padded) > 1 and others and pad is None:
            raise UnspoolError("rows may end at different lengths; set pad_token_id")
        greedy = not generation_config.do_sample
        # As in generate: torch's generator is used, unless the user gave a seed.
        seed = self._seed if self._seed is not None else 0 if greedy else int(torch.randint(2**63 - 1, ()).item())
        temperature = 0.0 if greedy else generation_config.temperature or 1.0
        rule = methods.acceptance_rule(self._acceptance, greedy, resources)
        record = bool(generation_config.return_dict_in_generate) and bool(
            generation_config.output_scores or generation_config.output_logits
        )
        rows = [
            _Row(padded[i], start, i, len(padded), logits_processor, others, input_ids.device, {} if record else None)
            for i, start in enumerate(starts)
        ]
        requests = [
            assemble(
                resources,
                row.padded[row.start :],
                self._method,
                rule,
                GenerationOptions(
                    max_new_tokens=(stopping_criteria.max_length or generation_config.max_length) - len(row.padded),
                    temperature=temperature,
                    seed=seed + row.index,
                ),
                shapers=[row.shape] if logits_processor or record else [],
                eos=frozenset(eos),
                stopping=row.stop if others else None,
            )
            for row in rows
        ]
        self._run(resources.model, requests, rows, pad, input_ids)
        return _output(rows, pad, input_ids, generation_config)

    def _on(self, model: PreTrainedModel) -> methods.Resources:
        if self._resources is None or self._model is not model:
            wrapped = TransformersModel.from_pretrained_model(model)
            memories = self._memories if self._memories is not None else {}
            self._resources = methods.Resources(wrapped, memories, cache(lambda: _costs(wrapped)), self._assistant)
            self._model = model
        return self._resources

    def _run(
        self, model: LanguageModel, requests: list[Request], rows: list[_Row], pad: int | None, prompt: torch.Tensor
    ) -> None:
        events = decode(model, requests)
        self.trace = []
        streamer, column = self._streamer, 0
        if streamer is not None:
            streamer.put(prompt.cpu())
        for event in events:
            self.trace.append(event)
            if isinstance(event, StepEvent):
                rows[event.row].emitted.extend(event.emitted)
            elif isinstance(event, EndEvent):
                rows[event.row].over = True
            # A streamer takes one token of every row at a time, but rows advance by unequal steps.
            while streamer is not None and (tokens := _column(rows, column, pad)):
                streamer.put(torch.tensor(tokens))
                column += 1
        if streamer is not None:
            streamer.end()


@dataclass
class _Row:
    """One sequence of the batch, with its padding, as transformers' processors and criteria expect it.

    Some depend on the row's index (``prefix_allowed_tokens_fn``, ``prompt_ignore_length``). These get a batch of the
    real size in which every row is this row's text, and only this row of the result is used.
    """

    padded: list[int]
    start: int
    index: int
    batch: int
    processors: LogitsProcessorList
    criteria: StoppingCriteriaList
    device: Any
    record: dict[tuple[int, ...], tuple[torch.Tensor, torch.Tensor]] | None
    emitted: list[int] = field(default_factory=list)
    over: bool = False

    def __post_init__(self) -> None:
        self._criteria_ids = list(self.padded)

    def shape(self, tokens: NDArray[np.int64], logits: Logits) -> Logits:
        """The prepared processors as one shaper; called with the history of the decided node."""
        new = tokens[len(self.padded) - self.start :].tolist()
        ids = torch.tensor([[*self.padded, *new]], device=self.device)
        raw = torch.tensor(logits, dtype=torch.float32, device=self.device)
        scores = raw[None]
        for processor in self.processors:
            if _row_dependent(processor):  # repeat copies, so those that write in place leave raw alone
                every = processor(ids.repeat(self.batch, 1), scores.repeat(self.batch, 1))
                scores = every[self.index : self.index + 1]
            else:
                scores = processor(ids, scores)
        if self.record is not None:
            self.record[tuple(new)] = (raw, scores[0])
        shaped: NDArray[np.float32] = scores[0].float().cpu().numpy()
        return shaped

    def stop(self, token: int) -> FinishReason | None:
        self._criteria_ids.append(token)
        ids = torch.tensor([self._criteria_ids], device=self.device).repeat(self.batch, 1)
        return "stopping_criteria" if bool(self.criteria(ids, None)[self.index]) else None


def _row_dependent(processor: object) -> bool:
    known = type(processor).__module__.startswith("transformers.")
    return not known or isinstance(processor, _ROW_DEPENDENT)


def _refuse(config: GenerationConfig, model_kwargs: dict[str, Any]) -> None:
    mode = config.get_generation_mode()
    if mode not in (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE):
        raise UnsupportedError(
            f"unspool replaces greedy search and sampling, not {mode.value}; leave out the options that select it "
            "and choose a method of unspool instead"
        )
    for output in ("output_attentions", "output_hidden_states"):
        if getattr(config, output):
            raise UnsupportedError(f"{output} is not available from a pass over a token tree; leave it out")
    given = sorted(name for name, value in model_kwargs.items() if value is not None and name not in _HARMLESS)
    if given:
        raise UnsupportedError(f"unspool decodes from input_ids only; leave out {', '.join(given)}")
    if any(getattr(model_kwargs.get(name), "_is_user_defined", False) for name in _CACHES):
        raise UnsupportedError("unspool keeps its own cache; leave out past_key_values and pass the whole text")


def _starts(input_ids: torch.Tensor, model_kwargs: dict[str, Any]) -> list[int]:
    """Index of each row's first token after its left padding."""
    mask = model_kwargs.get("attention_mask")
    if mask is None:  # generate drops a mask of ones
        mask = torch.ones_like(input_ids)
    seen = mask != 0
    if mask.shape != input_ids.shape or not seen[:, -1].all() or (seen[:, :-1] & ~seen[:, 1:]).any():
        raise UnsupportedError("attention_mask may only mask left padding; set padding_side='left' in the tokenizer")
    positions = model_kwargs.get("position_ids")
    expected = seen.long().cumsum(1) - 1
    if positions is not None and (positions.shape != seen.shape or not torch.equal(positions[seen], expected[seen])):
        raise UnsupportedError("positions count from the first token of the text; leave out position_ids")
    return [int(start) for start in seen.long().argmax(1)]


def _costs(model: TransformersModel) -> PassCosts:
    # Weights do not change the cost of a pass, so the configuration is the key.
    key = hashlib.sha256(model.model.config.to_json_string(use_diff=False).encode()).hexdigest()
    return PassCosts(calibration.load(model, key) or calibration.calibrate(model, key))


def _column(rows: Sequence[_Row], column: int, pad: int | None) -> list[int]:
    """Token ``column`` of every row's output; empty until all unfinished rows have it, and when all are finished."""
    lengths = [len(row.emitted) for row in rows]
    if column >= max(lengths) or any(column >= n and not row.over for row, n in zip(rows, lengths, strict=True)):
        return []
    return [_at(row.emitted, column, pad) for row in rows]


def _at(tokens: list[int], index: int, pad: int | None) -> int:
    if index < len(tokens):
        return tokens[index]
    assert pad is not None, "checked before decoding"
    return pad


def _output(rows: list[_Row], pad: int | None, input_ids: torch.Tensor, config: GenerationConfig) -> Any:
    steps = range(max(len(row.emitted) for row in rows))
    ids = [[*row.padded, *(_at(row.emitted, step, pad) for step in steps)] for row in rows]
    sequences = torch.tensor(ids, dtype=input_ids.dtype, device=input_ids.device)
    if not config.return_dict_in_generate:
        return sequences

    def recorded(which: int) -> tuple[torch.Tensor, ...]:
        return tuple(torch.stack([_recorded(row, step, which) for row in rows]) for step in steps)

    return GenerateDecoderOnlyOutput(
        sequences=sequences,
        scores=recorded(1) if config.output_scores else None,
        logits=recorded(0) if config.output_logits else None,
    )


def _recorded(row: _Row, step: int, which: int) -> torch.Tensor:
    assert row.record is not None
    if step < len(row.emitted):
        return row.record[tuple(row.emitted[:step])][which]
    return torch.zeros_like(row.record[()][which])
