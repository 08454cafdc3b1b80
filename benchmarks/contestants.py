"""The engines that ``speed.py`` compares, each in a process of its own: loads once, then decodes one prompt a line.

All get the same prompt ids, thread count and ids that end the text, decode greedily, and stamp every emission of tokens
with the clock when it reaches the caller, before any detokenisation.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from typing import Any, Protocol

from unspool.errors import UnspoolError


@dataclass(frozen=True)
class Settings:
    """What every contestant is loaded with.

    Attributes:
        model: as ``unspool.load`` takes it.
        threads: computing threads.
        context: longest prompt with its output, in tokens.
        genai_model: exported directory for OpenVINO GenAI; None: export the model's own int8 weights.
    """

    model: str
    threads: int
    context: int
    genai_model: str | None


@dataclass
class Emissions:
    """Tokens as they reached the caller.

    Attributes:
        token_ids: all of them; an id that ended the text is the last one.
        times: clock in seconds at each emission.
        counts: tokens of each emission.
        scoring_ms: milliseconds inside the model for each emission, where the engine tells.
    """

    token_ids: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    scoring_ms: list[float] | None = None

    def add(self, tokens: Sequence[int]) -> None:
        self.times.append(time.perf_counter())
        self.counts.append(len(tokens))
        self.token_ids.extend(tokens)


class Engine(Protocol):
    """A loaded contestant."""

    settings: dict[str, str]

    def decode(self, ids: list[int], max_new_tokens: int, eos: list[int]) -> Emissions: ...


class Unspool:
    """unspool itself. What a method learns stays from prompt to prompt, as it does for users."""

    def __init__(self, settings: Settings, method: str, weights: str) -> None:
        import unspool

        self.model = unspool.load(settings.model, weights=weights, threads=settings.threads)
        self.method = method
        self.settings = self.model.language_model.settings

    def decode(self, ids: list[int], max_new_tokens: int, eos: list[int]) -> Emissions:
        from unspool import methods
        from unspool.engine.loop import Request, decode
        from unspool.engine.options import GenerationOptions
        from unspool.engine.trace import StepEvent

        model = self.model
        around = methods.Surroundings(model.language_model, model.memories, model.cost_curve)
        request = Request(
            tokens=ids,
            drafter=methods.drafter(self.method, around),
            rule=methods.acceptance(None, True, around),
            options=GenerationOptions(max_new_tokens=max_new_tokens),
            eos=frozenset(eos),
            method=self.method,
        )
        out = Emissions(scoring_ms=[])
        for event in decode(model.language_model, [request]):
            if isinstance(event, StepEvent):
                out.add(event.emitted)
                assert out.scoring_ms is not None
                out.scoring_ms.append(event.score_ms)
        return out


class GenAI:
    """OpenVINO GenAI with its own defaults: paged attention, 8-bit keys and values."""

    def __init__(self, settings: Settings) -> None:
        import openvino_genai
        from genai_export import exported

        from unspool.backends.resolve import resolve

        directory = settings.genai_model or str(exported(resolve(settings.model)))
        self.pipeline = openvino_genai.LLMPipeline(directory, "CPU", INFERENCE_NUM_THREADS=settings.threads)
        self.settings = {"threads": str(settings.threads)}

    def decode(self, ids: list[int], max_new_tokens: int, eos: list[int]) -> Emissions:
        import numpy as np
        import openvino as ov
        import openvino_genai

        out = Emissions()

        class Streamer(openvino_genai.StreamerBase):  # type: ignore[misc]
            def write(self, token: int | list[int]) -> Any:
                out.add([token] if isinstance(token, int) else token)
                return openvino_genai.StreamingStatus.RUNNING

            def end(self) -> None:
                pass

        config = openvino_genai.GenerationConfig()
        config.do_sample = False
        config.max_new_tokens = max_new_tokens
        config.eos_token_id = eos[0]
        config.stop_token_ids = set(eos)
        prompt = np.array([ids], dtype=np.int64)
        inputs = openvino_genai.TokenizedInputs(ov.Tensor(prompt), ov.Tensor(np.ones_like(prompt)))
        result = self.pipeline.generate(inputs, config, Streamer())
        _check_stream(out, list(result.tokens[0]), eos)
        return out


class LlamaCpp:
    """llama-cpp-python on the GGUF as it is."""

    def __init__(self, settings: Settings) -> None:
        from llama_cpp import Llama

        from unspool.backends.resolve import resolve

        source = resolve(settings.model)
        if source.kind != "gguf":
            raise UnspoolError(f"llama.cpp needs a GGUF; {source.name} is not one")
        threads = settings.threads
        self.model = Llama(
            str(source.fetch()), n_ctx=settings.context, n_threads=threads, n_threads_batch=threads, verbose=False
        )
        self.settings = {"threads": str(threads), "file": source.path.name}

    def decode(self, ids: list[int], max_new_tokens: int, eos: list[int]) -> Emissions:
        out = Emissions()
        for token in self.model.generate(ids, temp=0.0, repeat_penalty=1.0):
            out.add([token])
            if token in eos or len(out.token_ids) == max_new_tokens:
                break
        return out


class Transformers:
    """transformers' ``generate`` on the same weights in float32."""

    def __init__(self, settings: Settings) -> None:
        import torch
        from transformers import GenerationConfig

        from unspool.backends import prepare
        from unspool.backends.resolve import resolve

        torch.set_num_threads(settings.threads)
        self.model = prepare.load_torch(resolve(settings.model))
        # The model's own configuration would fill in penalties that the others do not have.
        self.model.generation_config = GenerationConfig()
        self.settings = {"threads": str(settings.threads), "dtype": str(self.model.dtype)}

    def decode(self, ids: list[int], max_new_tokens: int, eos: list[int]) -> Emissions:
        import torch
        from transformers.generation import BaseStreamer

        out = Emissions()

        class Streamer(BaseStreamer):  # type: ignore[misc]
            prompt = True

            def put(self, value: Any) -> None:
                if not self.prompt:
                    out.add(value.reshape(-1).tolist())
                self.prompt = False

            def end(self) -> None:
                pass

        prompt = torch.tensor([ids])
        result = self.model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=max_new_tokens,
            eos_token_id=eos,
            pad_token_id=eos[0],
            streamer=Streamer(),
        )
        _check_stream(out, result[0, len(ids) :].tolist(), eos)
        return out


def _check_stream(out: Emissions, returned: list[int], eos: list[int]) -> None:
    """The stream must be what was returned; whether the id that ends the text is part of either differs by engine."""
    streamed = [token for token in out.token_ids if token not in eos]
    if streamed != [token for token in returned if token not in eos]:
        raise RuntimeError("the streamed tokens are not the returned ones; this version streams in another way")


@dataclass(frozen=True)
class Contestant:
    """A row of the table.

    Attributes:
        name: for the command line.
        label: for people.
        load: makes the engine.
        module, install: what must be importable, and the pip command that brings it.
    """

    name: str
    label: str
    load: Callable[[Settings], Engine]
    module: str = "unspool"
    install: str = "pip install unspool"

    @property
    def installed(self) -> bool:
        return find_spec(self.module) is not None


PLAIN, AUTO, INT4 = "unspool-plain-int8", "unspool-auto-int8", "unspool-plain-int4"
GENAI, LLAMA, TORCH = "openvino-genai-int8", "llama-cpp", "transformers-fp32"

CONTESTANTS = {
    contestant.name: contestant
    for contestant in (
        Contestant(PLAIN, "unspool plain, int8", lambda s: Unspool(s, "plain", "int8")),
        Contestant(AUTO, "unspool auto, int8", lambda s: Unspool(s, "auto", "int8")),
        Contestant(INT4, "unspool plain, int4", lambda s: Unspool(s, "plain", "int4")),
        Contestant(
            GENAI,
            "OpenVINO GenAI plain, same int8 weights",
            GenAI,
            "openvino_genai",
            "pip install openvino-genai openvino-tokenizers",
        ),
        Contestant(LLAMA, "llama-cpp-python, the GGUF", LlamaCpp, "llama_cpp", "pip install llama-cpp-python"),
        Contestant(TORCH, "transformers generate, fp32", Transformers, "transformers", "pip install transformers"),
    )
}


def serve(name: str) -> None:
    """Be a worker: one JSON object a line on stdin, one answer a line on stdout, until stdin closes."""
    # Libraries print to stdout; the answers get a channel of their own.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    engine: Engine | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if engine is None:
                engine = CONTESTANTS[name].load(Settings(**request))
                answer: dict[str, Any] = {"settings": engine.settings}
                if isinstance(engine, Unspool):
                    answer["eos"] = sorted(engine.model.eos_token_ids)
            elif "curve" in request:
                assert isinstance(engine, Unspool)
                answer = asdict(engine.model.cost_curve(fresh=True))
            else:
                answer = asdict(engine.decode(**request))
        except Exception as error:  # reported by the driver, which decides what becomes of the run
            # The last line: native libraries begin with places in their own source.
            reason = (str(error).strip() or "no message").splitlines()[-1].strip()
            answer = {"error": f"{type(error).__name__}: {reason}"}
        channel.write(json.dumps(answer) + "\n")
        channel.flush()
