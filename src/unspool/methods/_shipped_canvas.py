"""The rows of the registry for masked-diffusion models: parts of the denoise loop, which combine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from unspool.errors import UnspoolError
from unspool.methods import CanvasKind, CanvasSurroundings, Method
from unspool.methods.diffusion.adablock import AdaBlock, AdaBlockOptions
from unspool.methods.diffusion.credit import Credit, CreditOptions
from unspool.methods.diffusion.eb_sampler import EBSampler, EBSamplerOptions
from unspool.methods.diffusion.entropy_threshold import EntropyThreshold, EntropyThresholdOptions
from unspool.methods.diffusion.factor import Factor, FactorOptions
from unspool.methods.diffusion.fixed_blocks import FixedBlocks, FixedBlocksOptions
from unspool.methods.diffusion.learn2pd import FILE, Learn2PD, Learn2PDOptions, UnmaskFilter
from unspool.methods.diffusion.localleap import LocalLeap, LocalLeapOptions
from unspool.methods.diffusion.prophet import Prophet, ProphetOptions
from unspool.methods.diffusion.static_stop import StaticStop, StaticStopOptions
from unspool.methods.diffusion.threshold import Threshold, ThresholdOptions
from unspool.methods.diffusion.top_k import TopK, TopKOptions


def _row(
    name: str, kind: CanvasKind, summary: str, paper: str, options: type[Any], make: Callable[[Any], Any]
) -> Method:
    return Method(name, kind, "lossy", summary, paper, options, lambda _, values: make(values))


def _adablock(surroundings: CanvasSurroundings, options: AdaBlockOptions) -> AdaBlock:
    return AdaBlock(options, surroundings.delimiters() if options.delimiter_ids is None else ())


def _learn2pd(surroundings: CanvasSurroundings, options: Learn2PDOptions) -> Learn2PD:
    if options.filter is not None:
        return Learn2PD(options, UnmaskFilter.load(Path(options.filter)))
    beside = None if surroundings.directory is None else surroundings.directory / FILE
    if beside is None or not beside.is_file():
        raise UnspoolError("learn2pd needs a filter for this model; make one with `unspool train unmask-filter`")
    return Learn2PD(options, UnmaskFilter.load(beside))


SHIPPED_CANVAS = (
    _row(
        "threshold",
        "unmask",
        "Commits every token whose probability is high enough.",
        "Fast-dLLM: Training-free Acceleration of Diffusion LLM (2025)",
        ThresholdOptions,
        Threshold,
    ),
    _row(
        "top_k",
        "unmask",
        "Commits a fixed number of tokens a step; with one, what all others are compared with.",
        "Large Language Diffusion Models (2025)",
        TopKOptions,
        TopK,
    ),
    _row(
        "factor",
        "unmask",
        "Commits the more tokens at once, the more certain all of them are.",
        "Fast-dLLM: Training-free Acceleration of Diffusion LLM (2025)",
        FactorOptions,
        Factor,
    ),
    _row(
        "entropy_threshold",
        "unmask",
        "Commits every token whose entropy is low enough; `unspool train certainty` trains models for it.",
        "dParallel: Learnable Parallel Decoding for dLLMs (2025)",
        EntropyThresholdOptions,
        EntropyThreshold,
    ),
    _row(
        "eb_sampler",
        "unmask",
        "Commits the most certain tokens within a budget of entropy that bounds what they depend on one another.",
        "Accelerated Sampling from Masked Diffusion Models via Entropy Bounded Unmasking (2025)",
        EBSamplerOptions,
        EBSampler,
    ),
    _row(
        "localleap",
        "unmask",
        "Commits at a relaxed threshold next to very confident tokens.",
        "LocalLeap: Accelerating Diffusion LLM Inference via Local Determinism Propagation (2025)",
        LocalLeapOptions,
        LocalLeap,
    ),
    Method(
        "learn2pd",
        "unmask",
        "lossy",
        "Commits what a small trained filter takes for final, from the confidences of the whole block.",
        "Learning to Parallel: Accelerating Diffusion Large Language Models via Learnable Parallel Decoding (2025)",
        Learn2PDOptions,
        _learn2pd,
    ),
    _row(
        "credit",
        "transform",
        "Raises tokens that were a slot's likeliest for several steps.",
        "CreditDecoding: Accelerating Parallel Decoding in Diffusion LLMs with Trace Credit (2025)",
        CreditOptions,
        Credit,
    ),
    _row(
        "fixed_blocks",
        "schedule",
        "Finishes blocks of one length from left to right; by default the whole canvas is one.",
        "Large Language Diffusion Models (2025)",
        FixedBlocksOptions,
        FixedBlocks,
    ),
    Method(
        "adablock",
        "schedule",
        "lossy",
        "Ends a block where the model predicts the end of a line.",
        "AdaBlock-dLLM: Semantic-Aware Diffusion LLM Inference via Adaptive Block Size (2025)",
        AdaBlockOptions,
        _adablock,
    ),
    _row(
        "prophet",
        "stop",
        "Fills all remaining masks at once when the answer is certain.",
        "Diffusion Language Models Know the Answer Before Decoding (2025)",
        ProphetOptions,
        Prophet,
    ),
    _row(
        "static_stop",
        "stop",
        "Fills all remaining masks after a fixed number of passes: what prophet must beat.",
        "the control of prophet's paper",
        StaticStopOptions,
        StaticStop,
    ),
)
