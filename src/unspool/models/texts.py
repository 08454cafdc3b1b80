"""Tokens as bytes, for constraints on text: a token of a byte-level vocabulary may contain parts of characters."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from unspool.models.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLTokenizer

Texts = tuple[bytes | None, ...]

_known: WeakKeyDictionary[Tokenizer, Texts] = WeakKeyDictionary()


def token_texts(tokenizer: Tokenizer, vocab_size: int) -> Texts:
    """The bytes of every token. Takes a second or two, so it is cached per tokenizer.

    Args:
        tokenizer: of the model.
        vocab_size: width of the model's logits, which may exceed the tokenizer's vocabulary.

    Returns:
        [vocab_size] UTF-8 bytes; None for special tokens, empty for ids without a token.
    """
    texts = _known.get(tokenizer)
    if texts is None or len(texts) != vocab_size:
        from llguidance import LLTokenizer

        reader = LLTokenizer(tokenizer.to_json(vocab_size), n_vocab=vocab_size)

        def text(token: int) -> bytes | None:
            if not tokenizer.token(token):
                return b""
            return None if reader.is_special_token(token) else reader.decode_bytes([token])

        texts = _known[tokenizer] = tuple(text(token) for token in range(vocab_size))
    return texts


@lru_cache(maxsize=4)
def spelled(vocabulary: LLTokenizer) -> LLTokenizer:
    """The same tokens, but text that spells a special token is split into ordinary ones.

    A tokenizer reads ``<|im_end|>`` in a text as that token, but a grammar asks for the text.
    """
    from llguidance import LLTokenizer, TokenizerWrapper

    return LLTokenizer(
        TokenizerWrapper(_Spelling(vocabulary)), n_vocab=vocabulary.vocab_size, eos_token=vocabulary.eos_tokens
    )


class _Spelling:
    """The tokenizer interface that llguidance reads."""

    bos_token_id = unk_token_id = None

    def __init__(self, vocabulary: LLTokenizer) -> None:
        self._vocabulary = vocabulary
        self.eos_token_id = vocabulary.eos_token
        ids = range(vocabulary.vocab_size)
        self.special_token_ids = [i for i in ids if vocabulary.is_special_token(i)]
        self._special = frozenset(self.special_token_ids)
        self.tokens = [(b"\xff" if i in self._special else b"") + vocabulary.decode_bytes([i]) for i in ids]

    def __call__(self, given: bytes | str) -> list[int]:
        text = given.encode() if isinstance(given, str) else given
        made: list[int] = []
        while True:
            ids = self._vocabulary.tokenize_bytes(text)
            at = next((i for i, token in enumerate(ids) if token in self._special), None)
            if at is None:
                return made + ids
            before = self._vocabulary.decode_bytes(ids[:at])
            # A special token is cut after its first character: the rest of the text then reads the same whether or not
            # the text before it was committed. One that includes surrounding white space is left to the longest match.
            name = self.tokens[ids[at]][1:].decode()
            if not text.startswith(before + name.encode()) or len(name) < 2:
                return made + self._vocabulary.greedy_tokenize(text.decode(errors="ignore"))
            made += [*ids[:at], *self._vocabulary.greedy_tokenize(name[0])]
            text = text[len(before) + len(name[0].encode()) :]
