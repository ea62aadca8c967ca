"""Models that are run, not only read: the float network beside its quantized twin."""

import quantstore.graph.deferred  # noqa: F401 - before onnx_ir
