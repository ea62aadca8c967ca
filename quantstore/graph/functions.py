"""Local functions unfolded: torch's dynamo exporter writes modules as functions of the file.

onnx-ir's own inliner puts the body of a function in the place of each call; here the nodes of a
call get its name in front, ``outer/inner``, so that a layer says where it stands. limits.py counts
what a file would unfold to before anything is unfolded.
"""

from collections.abc import Sequence

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from quantstore.errors import ModelFileError

CANNOT_BE_FOLLOWED = "its local functions cannot be followed"


def unfold(model: ir.Model) -> None:
    """Put the bodies of local functions in the place of their calls, in place.

    Raises:
        ModelFileError: calls that do not fit their function.
    """
    if not model.functions:
        return
    for function in model.functions.values():
        # A function may bring operator sets of its own; what differs between versions is where
        # attributes and inputs went, never where the weights are.
        for domain in list(function.opset_imports):
            if domain in model.opset_imports:
                function.opset_imports[domain] = model.opset_imports[domain]
    try:
        _Inliner()(model)
    except Exception as error:
        # onnx-ir fails in as many ways as a call can be wrong.
        while (earlier := error.__cause__) is not None and isinstance(earlier, Exception):
            error = earlier
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ModelFileError(
            f"{CANNOT_BE_FOLLOWED} ({reason})", "check it with onnx.checker"
        ) from error


class _AnyName(set[str]):
    """Names that may repeat: onnx-ir would number them, one by one from the first on."""

    def __contains__(self, name: object) -> bool:
        return False


class _Inliner(InlinePass):
    """Names each node after the calls that lead to it, instead of numbering them."""

    def _reset(self, model: ir.Model) -> None:
        super()._reset(model)
        self._used_value_names = _AnyName()
        self._used_node_names = _AnyName()

    def _instantiate_call(
        self, node: ir.Node, call_site_id: str
    ) -> tuple[Sequence[ir.Node], Sequence[ir.Value]]:
        nodes, values = super()._instantiate_call(node, call_site_id)
        for inner in nodes:
            inner.name = f"{call_site_id}/{inner.name}"
        return nodes, values
