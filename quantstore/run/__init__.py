"""Models that are run, not only read: the float network beside its quantized twin.

``probe`` (on noise, within limits) and ``simulate`` (on inputs of one's own) are the two ways in.
``inputs``, ``noise`` and ``feeding`` feed the networks; ``twin``, ``restore``, ``pairing`` and
``surgery`` make the quantized one; ``points``, ``drift``, ``comparison`` and ``sensitivity``
compare the two. ``runtime`` alone knows onnxruntime. Nothing here knows a store.
"""

import quantstore.graph.deferred  # noqa: F401 - before onnx_ir
