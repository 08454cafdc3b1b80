"""The imports of a row of ``architectures``, done once for all rows. One thread each: nothing is timed."""

from __future__ import annotations

import torch
import transformers
from transformers import LlamaForCausalLM  # noqa: F401  # imports most of transformers

from unspool.backends.openvino import conversion_check  # noqa: F401
from unspool.backends.openvino.imports import imported
from unspool.backends.torch import model as torch_backend  # noqa: F401
from unspool.decoding import model as decoding  # noqa: F401

imported("openvino"), imported("nncf")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
torch.set_num_threads(1)
