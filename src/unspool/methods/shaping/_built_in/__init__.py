"""Logits shapers: penalties, biases and truncation, applied at each node of a token tree.

``build`` puts them in the order of transformers' ``generate``, so that the same options give the same distribution.
"""

from __future__ import annotations

from unspool.engine.contracts import Shaper
from unspool.engine.options import GenerationOptions
from unspool.methods.shaping._built_in.bias import SequenceBias, bad_words
from unspool.methods.shaping._built_in.processors import TorchProcessor, adapt
from unspool.methods.shaping._built_in.repetition import NoRepeatNGram, RepetitionPenalty
from unspool.methods.shaping._built_in.truncation import MinP, Temperature, TopK, TopP, TypicalP

__all__ = ["adapt", "build"]


def build(options: GenerationOptions) -> list[Shaper]:
    """The shapers that ``options`` enable: penalties and biases, the user's own, then the warpers.

    As in transformers, the warpers (temperature and truncation) are left out when ``options`` are greedy, and a user's
    processor replaces the built-in one of its type.

    Args:
        options: ``eos_token_id`` must be resolved if it matters (an end of text is never a bad word): None counts as
            no end of text.

    Raises:
        UnspoolError: for token sequences that are empty or contain negative ids, and for shapers that cannot be used.
    """
    processors: dict[str, Shaper] = {}
    if options.sequence_bias:
        processors["SequenceBiasLogitsProcessor"] = SequenceBias(options.sequence_bias)
    if options.repetition_penalty != 1:
        processors["RepetitionPenaltyLogitsProcessor"] = RepetitionPenalty(options.repetition_penalty)
    if options.no_repeat_ngram_size:
        processors["NoRepeatNGramLogitsProcessor"] = NoRepeatNGram(options.no_repeat_ngram_size)
    words = bad_words(options.bad_words_ids, options.eos_token_id or ())
    if words:
        processors["NoBadWordsLogitsProcessor"] = words
    return _merge(processors, adapt(options.shapers)) + ([] if options.greedy else _warpers(options))


def _merge(built_in: dict[str, Shaper], custom: list[Shaper]) -> list[Shaper]:
    merged = dict(built_in)
    rest = []
    for shaper in custom:
        name = _transformers_class(shaper)
        if name in built_in and merged[name] is built_in[name]:
            merged[name] = shaper
        else:
            rest.append(shaper)
    return [*merged.values(), *rest]


def _transformers_class(shaper: Shaper) -> str:
    kind = type(shaper.processor) if isinstance(shaper, TorchProcessor) else type(shaper)
    return kind.__name__ if kind.__module__.startswith("transformers.") else ""


def _warpers(options: GenerationOptions) -> list[Shaper]:
    warpers: list[Shaper] = []
    if options.temperature != 1:
        warpers.append(Temperature(options.temperature))
    if options.top_k:
        warpers.append(TopK(options.top_k))
    if options.top_p < 1:
        warpers.append(TopP(options.top_p))
    if options.min_p:
        warpers.append(MinP(options.min_p))
    if options.typical_p < 1:
        warpers.append(TypicalP(options.typical_p))
    return warpers
