"""Other engines on the same prompt ids: greedy, stopped only by the end of the text, otherwise with their defaults.

Each one decodes plainly or, given a number of draft tokens, with its own prompt lookup.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from typing import Any

from unspool.bench.engines import Clock, Decoded, Engine, Settings, Task
from unspool.errors import UnsupportedError


class _Peer:
    """Keeps no state between prompts that could affect decoding speed."""

    settings: dict[str, str]

    def reset(self) -> None:
        pass


class OpenVINOGenAI(_Peer):
    """OpenVINO GenAI on unspool's int8 weights: paged attention, 8-bit keys and values.

    In float32, like unspool. GenAI defaults to bfloat16 if the processor has it, which yields another text and, on the
    one measured here, a third less speed.
    """

    def __init__(self, settings: Settings, num_assistant_tokens: int | None) -> None:
        from unspool.backends.openvino.imports import imported
        from unspool.bench.peers.genai_export import exported
        from unspool.models.resolve import resolve

        openvino_genai = imported("openvino_genai")
        directory = str(exported(resolve(settings.model)))
        lookup = {"prompt_lookup": True} if num_assistant_tokens else {}
        self.num_assistant_tokens = num_assistant_tokens
        properties = {"INFERENCE_NUM_THREADS": settings.threads, "INFERENCE_PRECISION_HINT": "f32", **lookup}
        self.pipeline = openvino_genai.LLMPipeline(directory, "CPU", **properties)
        self.settings = {
            "openvino-genai": metadata.version("openvino-genai"),
            "weights": "int8",
            "threads": str(settings.threads),
            "precision": "f32",
            **_drafting(num_assistant_tokens),
        }

    def decode(self, task: Task) -> Decoded:
        import numpy as np

        from unspool.backends.openvino.imports import imported

        ov, openvino_genai = imported("openvino"), imported("openvino_genai")
        config = openvino_genai.GenerationConfig()
        config.do_sample = False
        config.max_new_tokens = task.max_new_tokens
        config.stop_token_ids = set(task.eos)
        if task.eos:
            config.eos_token_id = task.eos[0]
        if self.num_assistant_tokens:
            config.num_assistant_tokens = self.num_assistant_tokens
            config.max_ngram_size = 3
        prompt = np.array([task.ids], dtype=np.int64)
        inputs = openvino_genai.TokenizedInputs(ov.Tensor(prompt), ov.Tensor(np.ones_like(prompt)))
        clock = Clock()

        class Streamer(openvino_genai.StreamerBase):  # type: ignore[misc, name-defined]
            def write(self, token: int | list[int]) -> Any:
                clock.emit([token] if isinstance(token, int) else token)
                return openvino_genai.StreamingStatus.RUNNING

            def end(self) -> None:
                pass

        result = self.pipeline.generate(inputs, config, Streamer())
        _check_stream(clock.token_ids, list(result.tokens[0]), task.eos)
        return clock.decoded()


class LlamaCpp(_Peer):
    """llama-cpp-python on the unmodified GGUF."""

    def __init__(self, settings: Settings, num_assistant_tokens: int | None) -> None:
        from llama_cpp import Llama
        from llama_cpp.llama_speculative import LlamaPromptLookupDecoding

        from unspool.models.resolve import resolve

        source = resolve(settings.model)
        if source.kind != "gguf":
            raise UnsupportedError(f"llama.cpp needs a GGUF, which {source.name} is not; give a GGUF or leave it out")
        threads = settings.threads
        self.model = Llama(
            str(source.fetch()),
            n_ctx=settings.context,
            n_threads=threads,
            n_threads_batch=threads,
            draft_model=LlamaPromptLookupDecoding(num_pred_tokens=num_assistant_tokens)
            if num_assistant_tokens
            else None,
            verbose=False,
        )
        self.settings = {
            "llama-cpp-python": metadata.version("llama-cpp-python"),
            "weights": source.path.name,
            "threads": str(threads),
            **_drafting(num_assistant_tokens),
        }

    def decode(self, task: Task) -> Decoded:
        clock = Clock()
        for token in self.model.generate(task.ids, temp=0.0, repeat_penalty=1.0):
            clock.emit([token])
            if token in task.eos or len(clock.token_ids) == task.max_new_tokens:
                break
        return clock.decoded()


class Transformers(_Peer):
    """transformers' ``generate`` on the same weights in float32."""

    def __init__(self, settings: Settings, num_assistant_tokens: int | None) -> None:
        import torch
        from transformers import GenerationConfig

        from unspool.backends import prepare
        from unspool.models.resolve import resolve

        torch.set_num_threads(settings.threads)
        self.model = prepare.load_torch(resolve(settings.model))
        # The model's own configuration would add penalties that the others do not have.
        self.model.generation_config = GenerationConfig()
        self.lookup = {"prompt_lookup_num_tokens": num_assistant_tokens} if num_assistant_tokens else {}
        self.settings = {
            "transformers": metadata.version("transformers"),
            "torch": metadata.version("torch"),
            "weights": str(self.model.dtype).removeprefix("torch."),
            "threads": str(settings.threads),
            **_drafting(num_assistant_tokens),
        }

    def decode(self, task: Task) -> Decoded:
        import torch
        from transformers.generation import BaseStreamer

        prompt = torch.tensor([task.ids])
        clock = Clock()

        class Streamer(BaseStreamer):  # type: ignore[misc]
            prompt = True

            def put(self, value: Any) -> None:
                if not self.prompt:
                    clock.emit(value.reshape(-1).tolist())
                self.prompt = False

            def end(self) -> None:
                pass

        result = self.model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=task.max_new_tokens,
            eos_token_id=task.eos or None,
            pad_token_id=task.eos[0] if task.eos else 0,
            streamer=Streamer(),
            **self.lookup,
        )
        _check_stream(clock.token_ids, result[0, len(task.ids) :].tolist(), task.eos)
        return clock.decoded()


LOADERS: dict[str, Callable[[Settings, int | None], Engine]] = {
    "transformers": Transformers,
    "llama_cpp": LlamaCpp,
    "openvino_genai": OpenVINOGenAI,
}
"""By module of ``contestants.PEERS``."""


def _drafting(num_assistant_tokens: int | None) -> dict[str, str]:
    return {"prompt_lookup_tokens": str(num_assistant_tokens)} if num_assistant_tokens else {}


def _check_stream(streamed: list[int], returned: list[int], eos: list[int]) -> None:
    """Check that the stream equals the returned ids; engines differ in whether either includes the ending id."""
    if [token for token in streamed if token not in eos] != [token for token in returned if token not in eos]:
        raise RuntimeError("the streamed tokens are not the returned ones; this version streams differently")
