"""The rows of the registry that unspool ships: what each method is called, promises and is built from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from unspool.engine.contracts import Drafter, LanguageModel
from unspool.errors import UnspoolError, UnsupportedError
from unspool.methods import Method, NoOptions, Surroundings, drafter
from unspool.methods.acceptance.follow import Follow
from unspool.methods.acceptance.lossless import Lossless
from unspool.methods.batching.eqspec import EqSpec, EqSpecOptions
from unspool.methods.batching.exspec import ExSpec, ExSpecOptions
from unspool.methods.drafters.aded import Aded, AdedOptions
from unspool.methods.drafters.aded.table import TrigramTable
from unspool.methods.drafters.auto import Auto, AutoOptions
from unspool.methods.drafters.auto.rates import AcceptanceRates
from unspool.methods.drafters.draft_model import DraftModel, DraftModelOptions
from unspool.methods.drafters.dyspec import DySpec, DySpecOptions
from unspool.methods.drafters.pearl import Pearl, PearlOptions
from unspool.methods.drafters.plain import Plain, PlainOptions
from unspool.methods.drafters.prompt_lookup import PromptLookup, PromptLookupOptions
from unspool.methods.drafters.rasd import RASD, RASDOptions
from unspool.methods.drafters.rasd.datastore import Datastore
from unspool.methods.drafters.rsd import RSD, RSDOptions
from unspool.methods.drafters.specdec_pp import SpecDecPP, SpecDecPPOptions
from unspool.methods.drafters.stand import Stand, StandOptions
from unspool.methods.drafters.stand.memory import NGramMemory
from unspool.methods.drafters.suffix import Suffix, SuffixOptions
from unspool.methods.drafters.token_recycling import RecyclingMatrix, TokenRecycling, TokenRecyclingOptions


def _recycling(surroundings: Surroundings, options: TokenRecyclingOptions) -> TokenRecycling:
    memory = surroundings.memory("token_recycling", RecyclingMatrix, k=options.k)
    return TokenRecycling(options, memory, surroundings.model.vocab_size)


def _assisted(make: Callable[[Any, LanguageModel, int], Drafter]) -> Callable[[Surroundings, Any], Drafter]:
    def build(surroundings: Surroundings, options: Any) -> Drafter:
        assert surroundings.assistant is not None  # see check_needs
        return make(options, surroundings.assistant, surroundings.model.vocab_size)

    return build


def _pearl(surroundings: Surroundings, options: PearlOptions) -> Pearl:
    assert surroundings.assistant is not None  # see check_needs
    if surroundings.assistant is surroundings.model:
        raise UnsupportedError("pearl runs both models at once; load the draft model apart from the target")
    return Pearl(options, surroundings.assistant, surroundings.model.vocab_size)


def _aded(surroundings: Surroundings, options: AdedOptions) -> Aded:
    table: TrigramTable
    if options.corpus is None:
        table = surroundings.memory("aded", TrigramTable)
    else:
        table = surroundings.memory(f"aded:corpus={options.corpus}", TrigramTable)
        if not table.has_corpus:  # it is new, or all memories were reset; the option still names it
            store = Datastore.open(options.corpus)
            store.check(surroundings.model.vocab_size, surroundings.vocabulary())
            table.count(store.documents())
    return Aded(options, table, surroundings.model.vocab_size)


def _stand(surroundings: Surroundings, options: StandOptions) -> Stand:
    memory = surroundings.memory("stand", NGramMemory, orders=options.orders)
    return Stand(options, memory, surroundings.model.vocab_size)


def _rasd(surroundings: Surroundings, options: RASDOptions) -> RASD:
    inner = options.drafter or ("draft_model" if surroundings.assistant is not None else "token_recycling")
    # One object for all sequences: the files are mapped once.
    store: Datastore
    if options.datastore is None:
        store = surroundings.memory("rasd", Datastore)
    else:
        store = surroundings.memory(f"rasd:datastore={options.datastore}", Datastore)
        if store.path is None:  # it is new, or all memories were reset; the option still names it
            store.load(Path(options.datastore))
    store.check(surroundings.model.vocab_size, surroundings.vocabulary() if len(store) else "")
    return RASD(options, drafter(inner, surroundings), store)


def _auto(surroundings: Surroundings, options: AutoOptions) -> Auto:
    if surroundings.costs is None:
        raise UnspoolError("auto needs a cost curve; run through unspool.load(), which measures one")
    drafters = {name: drafter(name, surroundings) for name in ("suffix", "token_recycling")}
    rates = surroundings.memory("auto", AcceptanceRates)
    return Auto(drafters, surroundings.costs(), rates, options)


SHIPPED = (
    Method(
        "auto",
        "drafter",
        "identical",
        "Lets suffix drafts and token recycling compete for the nodes of one tree under this machine's cost curve.",
        "unspool's own",
        AutoOptions,
        _auto,
    ),
    Method(
        "aded",
        "drafter",
        "identical",
        "Searches a table of trigrams, of a corpus or empty at first and raised by the newest text, for what to draft.",
        "Adaptive Draft-Verification for Efficient Large Language Model Decoding (2025)",
        AdedOptions,
        _aded,
    ),
    Method(
        "draft_model",
        "drafter",
        "identical",
        "Drafts a chain with a smaller model of the same tokenizer.",
        "Fast Inference from Transformers via Speculative Decoding (2022)",
        DraftModelOptions,
        _assisted(DraftModel),
        assisted=True,
        draws=True,
    ),
    Method(
        "dyspec",
        "drafter",
        "identical",
        "Draws a tree from a draft model, always where the next draw is likeliest to be reached.",
        "DySpec: Faster Speculative Decoding with Dynamic Token Tree Structure (2024)",
        DySpecOptions,
        _assisted(DySpec),
        assisted=True,
        draws=True,
    ),
    Method(
        "pearl",
        "drafter",
        "identical",
        "Lets a draft model write the next block while the target scores the last one.",
        "PEARL: Parallel Speculative Decoding with Adaptive Draft Length (2024)",
        PearlOptions,
        _pearl,
        assisted=True,
    ),
    Method(
        "plain",
        "drafter",
        "identical",
        "One token a pass, no drafts: what every other method is compared with.",
        "textbook autoregressive decoding",
        PlainOptions,
        lambda _, options: Plain(options),
    ),
    Method(
        "prompt_lookup",
        "drafter",
        "identical",
        "Drafts what followed the last n-gram where it occurred before.",
        "Prompt Lookup Decoding (2023), as in transformers",
        PromptLookupOptions,
        lambda _, options: PromptLookup(options),
    ),
    Method(
        "rasd",
        "drafter",
        "identical",
        "Lays what is retrieved from the text and from a datastore over the tree of another drafter.",
        "RASD: Retrieval-Augmented Speculative Decoding (2025)",
        RASDOptions,
        _rasd,
        draws=True,
    ),
    Method(
        "rsd",
        "drafter",
        "identical",
        "Draws siblings that all differ from a draft model, by stochastic beam search or with constant branching.",
        "Recursive Speculative Decoding: Accelerating LLM Inference via Sampling Without Replacement (2024)",
        RSDOptions,
        _assisted(RSD),
        assisted=True,
        draws=True,
    ),
    Method(
        "specdec_pp",
        "drafter",
        "identical",
        "Ends a draft model's chain when some token of it will likely be rejected; (no head): an untrained stand-in.",
        "SpecDec++: Boosting Speculative Decoding via Adaptive Candidate Lengths (2024)",
        SpecDecPPOptions,
        _assisted(SpecDecPP),
        assisted=True,
        draws=True,
    ),
    Method(
        "stand",
        "drafter",
        "identical",
        "Draws drafts from the mean distributions that the target had after the same n-grams.",
        "Accelerated Test-Time Scaling with Model-Free Speculative Sampling (2025)",
        StandOptions,
        _stand,
        draws=True,
    ),
    Method(
        "suffix",
        "drafter",
        "identical",
        "Drafts what followed the longest suffix of the text that occurred before, by a suffix automaton.",
        "SAM Decoding: Speculative Decoding via Suffix Automaton (2024)",
        SuffixOptions,
        lambda _, options: Suffix(options),
    ),
    Method(
        "token_recycling",
        "drafter",
        "identical",
        "Unrolls a tree from a table of the tokens that the model last ranked highest after each token.",
        "Turning Trash into Treasure: Accelerating Inference of LLMs with Token Recycling (2024)",
        TokenRecyclingOptions,
        _recycling,
    ),
    Method(
        "greedy",
        "acceptance",
        "identical",
        "Keeps drafts that equal the argmax. The rule at temperature 0.",
        "textbook greedy verification of a tree",
        NoOptions,
        lambda *_: Follow(),
    ),
    Method(
        "same_noise",
        "acceptance",
        "identical",
        "Keeps drafts that equal the draw with the position's own noise: token for token the plain run of that seed.",
        "Gumbel coupling (unspool's reference rule for sampling)",
        NoOptions,
        lambda *_: Follow(),
    ),
    Method(
        "lossless",
        "acceptance",
        "same distribution",
        "Tests drawn drafts so that the output keeps the model's distribution; chosen ones give plain sampling's text.",
        "Speculative Sampling (2023), SpecInfer (2024), Recursive Speculative Decoding (2024)",
        NoOptions,
        lambda *_: Lossless(),
    ),
    Method(
        "eqspec",
        "batch",
        "identical",
        "The same number of rows in every pass; a row that ends is replaced at once.",
        "Batch Speculative Decoding Done Right (2025)",
        EqSpecOptions,
        lambda _, options: EqSpec(options),
    ),
    Method(
        "exspec",
        "batch",
        "identical",
        "Keeps more rows open than a pass holds and lets those of equal length run together.",
        "Batch Speculative Decoding Done Right (2025)",
        ExSpecOptions,
        lambda _, options: ExSpec(options),
    ),
)
