"""``unspool sample``: draw texts of a grammar from the model's own distribution over them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unspool.cli.common import (
    AssistantOption,
    BackendOption,
    DeviceOption,
    ModelOption,
    ThreadsOption,
    WeightsOption,
    bars,
    loaded,
    measure_costs,
    print_json,
    read_prompt,
)
from unspool.cli.output import CUT
from unspool.cli.request import Given, request_flags, values_of
from unspool.decoding.request import GRAMMARS, GenerationArguments
from unspool.engine.method import SAMPLER

if TYPE_CHECKING:
    from unspool.decoding.model import Model
    from unspool.decoding.sample import Samples


@request_flags("method", "max_new_tokens", "seed", "chat", *GRAMMARS)
def sample(
    *,
    prompt: Annotated[
        str | None, typer.Argument(help="The prompt; without it, --file or standard input is read.")
    ] = None,
    model: ModelOption = None,
    assistant_model: AssistantOption = None,
    num_samples: Annotated[int, typer.Option("-n", "--num-samples", help="Number of texts to draw.")] = 10,
    sampler: Annotated[
        str | None,
        typer.Option(
            help="cars: exact and independent, more attempts. asap: every attempt counts, exact in the limit. "
            "Default: cars.",
            show_default=False,
        ),
    ] = None,
    temperature: Annotated[float, typer.Option(help="Temperature of the target distribution, above 0.")] = 1.0,
    max_attempts: Annotated[
        int | None, typer.Option(help="Maximum number of attempts (runs of the model). Default: 100 per text.")
    ] = None,
    given: Given,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Read the prompt from this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    backend: BackendOption = "openvino",
    weights: WeightsOption = None,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
) -> None:
    """Draw texts of a grammar with the probabilities that the model itself gives them.

    Masking tokens one by one, as `unspool generate --regex` does, distorts these probabilities; a sampler does not.
    stderr gets one line: texts, attempts, how many left the grammar or were cut, passes, sampler. Exit code 3 if the
    attempts did not suffice.

    Examples:

      unspool sample --regex "[1-6]" -n 20 "Roll a die."

      unspool sample --sampler asap --choices heads --choices tails "Flip a coin:"

      unspool sample -m qwen2.5-coder-0.5b --json-schema person.json --json "Make up a person." | jq .samples
    """
    from unspool import methods
    from unspool.decoding.sample import check

    text = read_prompt(prompt, file)
    arguments = GenerationArguments(**values_of(given), temperature=temperature)
    sampler = sampler or methods.DEFAULTS[SAMPLER]
    # Fail before a model is loaded or downloaded.
    check(num_samples, sampler, temperature, max_attempts, arguments.texts)
    arguments.check(assistant_model)
    length = arguments.max_new_tokens
    with loaded(model, backend, assistant_model, length, weights=weights, threads=threads, device=device) as decoder:
        measure_costs(decoder, arguments.method)
        with bars() as progress:
            samples = decoder.sample(
                text,
                num_samples,
                sampler=sampler,
                temperature=temperature,
                max_new_tokens=length,
                seed=arguments.seed,
                method=arguments.method,
                chat=arguments.chat,
                max_attempts=max_attempts,
                progress=progress,
                **arguments.texts,
            )
    if as_json:
        print_json(_as_json(decoder, samples))
    else:
        for result in samples.results:
            print(result.text)
        print(
            f"[{len(samples.results)} texts · {samples.attempts} attempts · {samples.rejected} rejected · "
            f"{samples.cut} cut · {samples.passes} passes · {samples.method}]",
            file=sys.stderr,
        )
    if len(samples.results) < num_samples:
        print(
            f"unspool: {samples.attempts} attempts gave {len(samples.results)} of {num_samples} texts; raise "
            "--max-attempts, or --max-new-tokens if most were cut",
            file=sys.stderr,
        )
        raise typer.Exit(CUT)


def _as_json(model: Model, samples: Samples) -> dict[str, Any]:
    return {
        "model": samples.model,
        "method": samples.method,
        "samples": [
            {
                "text": result.text,
                "token_ids": result.token_ids,
                "parsed": result.parsed,
                "parse_error": result.parse_error,
            }
            for result in samples.results
        ],
        "attempts": samples.attempts,
        "rejected": samples.rejected,
        "cut": samples.cut,
        "passes": samples.passes,
        "settings": model.language_model.settings,
    }
