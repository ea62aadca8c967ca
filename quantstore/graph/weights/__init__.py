"""Files of weights without a graph in, graphs of unconnected layers out: safetensors and GGUF."""

from quantstore.graph.weights.gguf import open_gguf
from quantstore.graph.weights.safetensors import open_safetensors

__all__ = ["open_gguf", "open_safetensors"]
