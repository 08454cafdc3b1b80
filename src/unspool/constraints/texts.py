"""Tokens as bytes, for constraints on text: a token of a byte-level vocabulary may hold parts of characters."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from unspool.backends.tokenizer import Tokenizer

Texts = tuple[bytes | None, ...]

_known: WeakKeyDictionary[Tokenizer, Texts] = WeakKeyDictionary()


def token_texts(tokenizer: Tokenizer, vocab_size: int) -> Texts:
    """The bytes of every token. That takes a second or two, so it is done once for a tokenizer.

    Args:
        tokenizer: of the model.
        vocab_size: width of the model's logits, which may be more than the tokenizer has tokens.

    Returns:
        [vocab_size] bytes in UTF-8; None for special tokens, empty for ids without a token.
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
