"""Decode with a method of unspool: the ``custom_generate`` function of a model repository."""

import unspool


def generate(
    model, *, method="auto", acceptance=None, seed=None, method_options=None, streamer=None, tokenizer=None, **kwargs
):
    """Called by ``model.generate(..., custom_generate=DIRECTORY, trust_remote_code=True)`` with all its arguments.

    Args:
        model: the model that ``generate`` was called on.
        method, acceptance, seed, streamer: see ``unspool.transformers_method``.
        method_options: dict of the method's own options.
        tokenizer: not used; ids come in and go out.
        **kwargs: everything else that was given to ``generate``, prepared by transformers as always.
    """
    decode = unspool.transformers_method(
        method, acceptance=acceptance, seed=seed, streamer=streamer, **(method_options or {})
    )
    return model.generate(**kwargs, custom_generate=decode)
