"""Models that are run, not only read: in float and rounded, on the same inputs.

``probe`` (on noise, within limits) and ``simulate`` (on your own inputs) are the two ways in.
``inputs``, ``noise`` (with ``pictures``, ``waveforms``, ``tokens``, ``states``) and ``feeding``
feed the network. ``twin``, ``restore``, ``precision`` and ``network`` get it ready. ``placement``,
``ranges``, ``calibration`` and ``plans`` say how it is rounded, and ``emulator`` runs it so.
``points``, ``comparison``, ``outputs``, ``drift`` and ``sensitivity`` compare; ``decoder`` and
``tail`` run what is behind the points. ``qdq_file`` writes the int8 file, ``kernels`` runs that.
``runtime`` alone knows onnxruntime. Nothing here knows a store.
"""

import quantstore.graph.deferred  # noqa: F401 - before onnx_ir
