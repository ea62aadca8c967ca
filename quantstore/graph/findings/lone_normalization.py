"""BatchNormalizations that no convolution is before, so that nothing can take them in."""

from collections import Counter
from collections.abc import Iterator

from quantstore.graph.batchnorm import FOLDABLE
from quantstore.graph.findings.base import OfModel, Sentences, SurveyedModel, is_standard


def _look(model: SurveyedModel) -> Iterator[Sentences]:
    if not model.fold:
        return
    behind: Counter[str] = Counter()
    for node in model.file.model.graph.all_nodes():
        if node.op_type != "BatchNormalization" or not is_standard(node) or not node.inputs:
            continue
        source = node.inputs[0].producer() if node.inputs[0] is not None else None
        # Behind a convolution it concerns a layer, and behind a Mul perhaps, too.
        if source is None:
            behind["an input"] += 1
        elif source.op_type not in (*FOLDABLE, "Mul"):
            behind[source.op_type] += 1
    if behind:
        count = sum(behind.values())
        where = ", ".join(
            f"{number} after {source_name}" for source_name, number in behind.most_common(4)
        )
        nodes, them = (
            ("BatchNormalization follows", "it")
            if count == 1
            else ("BatchNormalizations follow", "they")
        )
        yield Sentences(
            f"{count:,} {nodes} no convolution ({where}), so {them} cannot be folded.",
            "Runtimes compute such nodes in float or quantize their outputs: check the"
            " activations there.",
        )


LONE_NORMALIZATION = OfModel(
    name="not folded",
    severity="note",
    meaning="A BatchNormalization follows no convolution, so it cannot be folded into weights.",
    look=_look,
)
