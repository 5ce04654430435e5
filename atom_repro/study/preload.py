"""Imports of the libraries that stages share, for the server process that stages are forked from.

Importing them takes most of the time of a stage whose record exists already.
"""

from atom_repro.config.command import configure_libraries

configure_libraries()

import accelerate.utils  # noqa: E402, F401
import av  # noqa: E402, F401
import hydra  # noqa: E402, F401
import matplotlib.pyplot  # noqa: E402, F401
import numpy  # noqa: E402, F401
import safetensors.torch  # noqa: E402, F401
import sentence_transformers  # noqa: E402, F401
import tokenizers  # noqa: E402, F401
import torch  # noqa: E402, F401
import torchao.quantization  # noqa: E402, F401
