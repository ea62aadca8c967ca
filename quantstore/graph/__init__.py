"""ONNX file in, layers out. The only package that knows onnx and onnx-ir."""

from quantstore.graph.file import ModelFile, open_model
from quantstore.graph.pairs import find_pairs
from quantstore.graph.walk import Site, find_sites, read_layer

__all__ = ["ModelFile", "Site", "find_pairs", "find_sites", "open_model", "read_layer"]
