"""A corpus of token ids on disk, searched without being loaded: ``rasd`` retrieves continuations from it.

A datastore belongs to the vocabulary of its ids. Its files (see ``files``) are mapped into memory: it opens at once,
costs only the pages that are read, and is shared by processes.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unspool.engine.progress import Progress, silent
from unspool.errors import UnspoolError
from unspool.methods.drafters._datastore import files as datastore_files
from unspool.methods.drafters._datastore.files import Arrays
from unspool.methods.drafters._datastore.suffix_array import SEPARATOR, occurrences, sort_suffixes

LONGEST_MATCH, SHORTEST_MATCH = 16, 2
"""Numbers of tokens of the suffix that is looked up, from the most to the least, as in REST."""

SAMPLED = 256
"""Most occurrences of a match that are read; of more, this many are sampled evenly in suffix-array order."""


class Datastore:
    """Documents of token ids and their suffix array; a ``Memory`` that no method writes to. Empty when made.

    Attributes:
        vocabulary: ``vocabulary_fingerprint`` of the tokenizer; empty if it is not known, and then only the size is
            compared with that of a model.
        model: name of the model whose tokenizer it was, for display.
        path: the directory that it was opened from or saved to; None if there is none.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget the documents; the files are kept."""
        self.vocabulary = self.model = ""
        self.path: Path | None = None
        self._tokens = np.empty(0, np.int32)
        self._starts = np.empty(0, np.int64)
        self._suffixes: NDArray[Any] = np.empty(0, np.int32)
        self._largest = -1  # largest id

    @classmethod
    def from_sequences(
        cls,
        sequences: Iterable[Sequence[int]],
        vocabulary: str = "",
        model: str = "",
        progress: Progress = silent,
    ) -> Datastore:
        """Build from documents of ids; empty ones are left out.

        Args:
            progress: receives how much of the sorting is done.
        """
        tokens, starts = array("i"), array("q")
        for sequence in sequences:
            if len(sequence):
                starts.append(len(tokens))
                tokens.extend(map(int, sequence))
                tokens.append(SEPARATOR)
        made = cls()
        made.vocabulary, made.model = vocabulary, model
        made._tokens = np.array(tokens, dtype=np.int32)
        made._starts = np.array(starts, dtype=np.int64)
        if len(starts) and np.count_nonzero(made._tokens < 0) > len(starts):
            raise UnspoolError("a document contains a negative token id; ids start at 0")
        suffixes = sort_suffixes(made._tokens, LONGEST_MATCH, progress)
        made._suffixes = suffixes.astype(np.int32) if len(tokens) <= np.iinfo(np.int32).max else suffixes
        made._largest = int(made._tokens.max(initial=-1))
        return made

    @classmethod
    def open(cls, path: Path | str) -> Datastore:
        """Map the files of a directory into memory.

        Raises:
            UnspoolError: if it is not a datastore, is damaged, or has another format.
        """
        made = cls()
        made.load(Path(path))
        return made

    def load(self, path: Path) -> None:
        """Replace the contents with those of a directory, as ``open`` does; if that fails, nothing is changed."""
        path = path.expanduser()
        header, arrays = datastore_files.read(path)
        self.vocabulary, self.model, self._largest = header["vocabulary"], header["model"], header["largest"]
        self._tokens, self._starts, self._suffixes = arrays["tokens"], arrays["starts"], arrays["suffixes"]
        self.path = path

    def save(self, path: Path) -> None:
        """Write a new directory, which appears when it is complete.

        Raises:
            UnspoolError: if it exists or cannot be written.
        """
        path = path.expanduser()
        header = {"model": self.model, "vocabulary": self.vocabulary, "largest": self._largest}
        arrays: Arrays = {"tokens": self._tokens, "starts": self._starts, "suffixes": self._suffixes}
        datastore_files.write(path, header, arrays)
        self.path = path

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self._tokens) - len(self._starts)

    def documents(self) -> Iterator[NDArray[np.int32]]:
        """The ids of every document, in the order in which they were given; must not be changed."""
        ends = [*self._starts[1:].tolist(), len(self._tokens)] if len(self._starts) else []
        for start, end in zip(self._starts.tolist(), ends, strict=True):
            yield self._tokens[start : end - 1]

    @property
    def count(self) -> int:
        """Number of documents."""
        return len(self._starts)

    def check(self, vocab_size: int, vocabulary: str = "") -> None:
        """Refuse a model with another vocabulary.

        Args:
            vocab_size: width of the model's row of logits.
            vocabulary: ``vocabulary_fingerprint`` of its tokenizer; empty if it is not known.

        Raises:
            UnspoolError: if the ids belong to another vocabulary.
        """
        differs = self.vocabulary and vocabulary and self.vocabulary != vocabulary
        if differs or self._largest >= vocab_size:
            origin = f" of {self.model}" if self.model else ""
            raise UnspoolError(
                f"the datastore {self.path or ''} was built with the tokenizer{origin}, but this model has another "
                "one; rebuild it with `unspool datastore build -m MODEL`"
            )

    def retrieve(self, text: Sequence[int], length: int) -> tuple[int, NDArray[np.int32]]:
        """What followed the longest suffix of ``text`` that occurs in a document.

        Suffixes of 16 tokens down to 2 are looked up; only the longest one that occurs is used.

        Args:
            length: tokens of a continuation.

        Returns:
            (tokens of the suffix, continuations int32 [occurrences, length]); a row that reaches the end of its
            document is padded with ``SEPARATOR``. (0, no rows) without a match.
        """
        matched, low, high = self._longest(text[-LONGEST_MATCH:])
        count = high - low
        sample = np.arange(low, high) if count <= SAMPLED else low + np.arange(SAMPLED) * count // SAMPLED
        places = self._suffixes[sample].astype(np.int64)[:, None] + np.arange(matched, matched + length)
        # Positions beyond the end are clipped to the last one, which is a separator.
        rows = self._tokens[np.minimum(places, len(self._tokens) - 1)] if count else np.empty((0, length), np.int32)
        return matched, np.where(np.logical_or.accumulate(rows == SEPARATOR, axis=1), SEPARATOR, rows)

    def _longest(self, text: Sequence[int]) -> tuple[int, int, int]:
        # Every shorter suffix of one that occurs also occurs, so the longest is found by bisection.
        best = (0, 0, 0)
        shortest, longest = SHORTEST_MATCH, len(text)
        while shortest <= longest:
            length = (shortest + longest) // 2
            low, high = occurrences(self._tokens, self._suffixes, text[-length:])
            if low < high:
                best, shortest = (length, low, high), length + 1
            else:
                longest = length - 1
        return best
