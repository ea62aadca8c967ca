"""A model file in, layers out: ONNX, and TensorFlow Lite in ONNX's terms."""

import quantstore.graph.deferred  # noqa: F401 - before onnx_ir
from quantstore.graph.file import ModelFile, open_model, own_model, require_unchanged
from quantstore.graph.findings import Finding, of_layer, of_model
from quantstore.graph.flow import Flow, flow_of
from quantstore.graph.formats import open_any
from quantstore.graph.named_files import named_files
from quantstore.graph.pairs import find_pairs
from quantstore.graph.unread import Unread
from quantstore.graph.walk import (
    Site,
    Survey,
    find_sites,
    read_layer,
    read_or_reason,
    survey,
    within_limits,
)

__all__ = [
    "Finding",
    "Flow",
    "ModelFile",
    "Site",
    "Survey",
    "Unread",
    "find_pairs",
    "find_sites",
    "flow_of",
    "named_files",
    "of_layer",
    "of_model",
    "open_any",
    "open_model",
    "own_model",
    "read_layer",
    "read_or_reason",
    "require_unchanged",
    "survey",
    "within_limits",
]
