"""Loads onnx_ir without sympy, which reading and running models never needs.

onnx_ir imports it to compute with symbolic dimensions, and it takes as long to load as all the rest
together: a quarter of a second in every process that reads a model. To be imported before onnx_ir.
Its first use loads it; where onnx_ir comes to use it at once, that is as if this were not here.

This alone touches the interpreter while it is imported, because nothing later would help: onnx_ir
imports sympy as it loads, and has no switch against it. The finder stands in ``sys.meta_path`` only
until onnx_ir is there, so a program around this one finds the list as it was, and in
``sys.modules`` the modules it would find without us, loaded when they are first used.
"""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType

# sympy, and the part of onnx_ir that takes functions out of it while being imported.
_DEFERRED = ("sympy", "onnx_ir._symbolic_shapes")


class _Finder:
    """Finds these modules where they are, and has them loaded by their first use."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """What ``import`` asks for; None leaves the module to the other finders."""
        spec = PathFinder.find_spec(name, path, target) if name in _DEFERRED else None
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


# Only while onnx_ir loads: a program around this one imports what it wants, as it wants.
sys.meta_path.insert(0, _Finder)
try:
    import onnx_ir  # noqa: F401
finally:
    sys.meta_path.remove(_Finder)
