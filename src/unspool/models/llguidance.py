"""A model's tokens as an llguidance tokenizer."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from unspool.models.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLTokenizer

_vocabularies: WeakKeyDictionary[Tokenizer, LLTokenizer] = WeakKeyDictionary()


def llguidance_vocabulary(tokenizer: Tokenizer, size: int) -> LLTokenizer:
    """Cached per tokenizer, since it takes a second or two.

    Args:
        size: of the model's vocabulary.
    """
    if tokenizer not in _vocabularies:
        from llguidance import LLTokenizer

        _vocabularies[tokenizer] = LLTokenizer(tokenizer.to_json(size), n_vocab=size)
    return _vocabularies[tokenizer]
