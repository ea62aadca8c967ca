"""Files of weights without a graph in, graphs of unconnected layers out: safetensors and GGUF."""

from quantstore.graph.weights.gguf import open_gguf, other_part_names
from quantstore.graph.weights.safetensors import index_names, open_safetensors

__all__ = ["index_names", "open_gguf", "open_safetensors", "other_part_names"]
