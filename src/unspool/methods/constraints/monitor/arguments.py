"""The monitor of argument counts: a call is not closed before its required arguments are written.

If exactly one signature is known, brackets that would close a call too early are masked. The paper's monitor counts
commas; here the arguments are parsed, so that defaults, names, stars, strings and nested brackets are counted
correctly. As in the paper, only closing is monitored: too many arguments are not refused. A bracket that opens inside a
token is monitored if it is the token's first character (``()``).
"""

from __future__ import annotations

import ast
import warnings
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from unspool.methods.constraints.monitor.analyser import Asked, Signature
from unspool.methods.constraints.monitor.masks import Vocabulary
from unspool.methods.constraints.monitor.scan import Scanner


class ArgumentCount:
    """Decides which tokens may follow a place, as far as they close calls."""

    def __init__(self, vocabulary: Vocabulary, asked: Asked) -> None:
        self._vocabulary = vocabulary
        self._asked = asked

    def is_allowed(self, text: bytes, place: Scanner, token: int) -> bool:
        """Whether ``token`` closes no call too early."""
        piece = self._vocabulary.texts[token]
        if not piece or b")" not in piece:
            return True
        for call, end in place.copy().closed(piece):
            if call.at <= place.at:
                whole = text + piece
                signature = self._asked.signature(whole[: call.at + 1])
                if signature and not complete(signature, whole[call.at + 1 : end]):
                    return False
        return True

    def mask(self, text: bytes, place: Scanner) -> NDArray[np.bool_] | None:
        """[vocabulary]; None if everything is permitted."""
        if not place.callable and not any(frame.call for frame in place.open):
            return None
        banned = [token for token in self._vocabulary.closing if not self.is_allowed(text, place, token)]
        return ~self._vocabulary.mask([np.array(banned)]) if banned else None


@lru_cache(maxsize=4096)
def complete(signature: Signature, arguments: bytes) -> bool:
    """Whether these arguments, as written, fill all required parameters. True if that cannot be determined."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's warnings about literals in the text
            call = ast.parse(b"f(" + arguments + b"\n)", mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return True
    if not isinstance(call, ast.Call) or any(isinstance(argument, ast.Starred) for argument in call.args):
        return True
    names = {keyword.arg for keyword in call.keywords}
    if None in names:
        return True
    positional = [parameter for parameter in signature if parameter.positional]
    given = names | {parameter.name for parameter in positional[: len(call.args)]}
    return all(parameter.name in given for parameter in signature if parameter.required)
