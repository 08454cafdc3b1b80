"""``Model``: a loaded language model; each method is implemented in the file of its name in this package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from unspool.decoding.loaded import LoadedModel, Prompt
from unspool.decoding.request import GenerationArguments, arguments

if TYPE_CHECKING:
    from unspool.decoding.edit import EditableText
    from unspool.decoding.extract import Extraction
    from unspool.decoding.results import Result, Stream
    from unspool.decoding.sample import Samples
    from unspool.decoding.search import SearchResult


class Model(LoadedModel):
    """A loaded model with its tokenizer, its draft model if any, and what methods have learned (``memories``).

    Created by ``load``. Threads may share it: they take turns, one pass each, and each gets the text that it would get
    alone. A forked process must load its own model.
    """

    @overload
    def generate(self, prompt: Prompt, **options: Any) -> Result: ...

    @overload
    def generate(self, prompt: list[str] | list[list[int]], **options: Any) -> list[Result]: ...

    def generate(self, prompt: Any, **options: Any) -> Any:
        """Decode one prompt, or a list of prompts as one batch whose rows equal the rows alone.

        Args:
            prompt: see ``encode``; a list of texts, or of lists of ids, is a batch.
            **options: fields of ``GenerationArguments``: ``method``, ``max_new_tokens``, ``temperature``, ... A method
                is given by a spec, such as ``"token_recycling:nodes=8"``, or by an object of its options, see
                ``methods.spec``.

        Raises:
            UnspoolError: for an invalid request, before any work.
        """
        from unspool.decoding.generate import generate

        return generate(self, prompt, arguments(GenerationArguments, options, self.name))

    def stream(self, prompt: Prompt, **options: Any) -> Stream:
        """Like ``generate`` for one prompt, but yields the text piece by piece."""
        from unspool.decoding.generate import stream

        return stream(self, prompt, arguments(GenerationArguments, options, self.name))

    def sample(self, prompt: Prompt, num_samples: int, **options: Any) -> Samples:
        """Draw texts of a grammar with the probabilities that the model itself gives them; see ``decoding.sample``."""
        from unspool.decoding.sample import sample

        return sample(self, prompt, num_samples, **options)

    def search(self, prompt: Prompt, **options: Any) -> SearchResult:
        """Search for a better continuation of one prompt than greedy decoding's; see ``decoding.search``."""
        from unspool.decoding.search import search

        return search(self, prompt, **options)

    def extract(self, question: str, passage: str, **options: Any) -> Extraction:
        """Answer a question with the most probable spans of a passage; see ``decoding.extract``."""
        from unspool.decoding.extract import extract

        return extract(self, question, passage, **options)

    def edit(self, text: str, **options: Any) -> EditableText:
        """Encode a text to edit while its cache is kept; see ``decoding.edit``."""
        from unspool.decoding.edit import edit

        return edit(self, text, **options)
