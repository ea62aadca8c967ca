"""Models that are run, not only read: the network in float, and what rounding makes of it.

``probe`` (on noise, within limits) and ``simulate`` (on inputs of one's own) are the two ways in.
``inputs``, ``noise`` and ``feeding`` feed the network; ``twin``, ``restore``, ``precision`` and
``network`` get it ready; ``placement``, ``ranges``, ``calibration`` and ``plans`` say how it is
rounded, and ``emulator`` runs it so. ``points``, ``comparison``, ``drift`` and ``sensitivity``
compare. ``qdq_file`` writes the int8 file, ``kernels`` runs that. ``runtime`` alone knows
onnxruntime. Nothing here knows a store.
"""

import quantstore.graph.deferred  # noqa: F401 - before onnx_ir
