"""Decode with a method of unspool: the ``custom_generate`` function of a model repository."""

import unspool


def generate(model, *, method="auto", acceptance=None, seed=None, streamer=None, tokenizer=None, **kwargs):
    """Called by ``model.generate(..., custom_generate=DIRECTORY, trust_remote_code=True)`` with all its arguments.

    Args:
        model: the model that ``generate`` was called on.
        method, acceptance, seed, streamer: see ``unspool.transformers_method``.
        tokenizer: not used; ids come in and go out.
        **kwargs: everything else that was given to ``generate``, prepared by transformers as always.
    """
    decode = unspool.transformers_method(method, acceptance=acceptance, seed=seed, streamer=streamer)
    return model.generate(**kwargs, custom_generate=decode)
