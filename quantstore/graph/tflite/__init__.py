"""A TensorFlow Lite file in, the same graph in ONNX's terms out. Nobody else knows the format.

``schema`` reads what the flatbuffer holds, ``translation`` says it in operators of ONNX, so that
everything else reads its layers as it reads those of an ONNX file. ``file`` does both.
"""

from quantstore.graph.tflite.file import open_tflite

__all__ = ["open_tflite"]
