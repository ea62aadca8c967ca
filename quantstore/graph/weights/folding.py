"""Which BatchNormalization belongs to which convolution, where names leave no doubt.

In a Sequential the number says it: a normalization at 1 follows the convolution at 0. Elsewhere it
is a pair of names, such as ``conv1`` and ``bn1``. Such names do not say which of the two comes
first (in a pre-activation network it is the normalization), but lengths do where a convolution has
more output channels than input channels, or fewer: a pair of names counts if at least one of its
convolutions shows that the normalization follows, and none that it comes before.
"""

import dataclasses
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from quantstore.graph.weights.names import Convolution

# What stands in the name of a normalization, and in its place in that of its convolution. Of two
# that fit, the longer one.
_PARTNERS = (
    ("normalization", "convolution"),
    ("batch_norm", "conv"),
    ("batchnorm", "conv"),
    ("norm", "conv"),
    ("bn", "conv"),
)


def folded_into(
    convolutions: Sequence[Convolution], normalizations: Mapping[str, int]
) -> dict[str, tuple[Convolution, str]]:
    """Convolutions with the normalization behind them, by the module of the convolution.

    Args:
        normalizations: the number of channels of each, by its module.
    """
    by_module = {convolution.module: convolution for convolution in convolutions}
    pairs = [
        *_in_sequence(by_module, normalizations),
        *_by_names(by_module, normalizations),
    ]
    claims = Counter(convolution.module for convolution, _ in pairs)
    return {
        convolution.module: (convolution, module)
        for convolution, module in pairs
        if claims[convolution.module] == 1
    }


def _in_sequence(
    by_module: Mapping[str, Convolution], normalizations: Mapping[str, int]
) -> list[tuple[Convolution, str]]:
    pairs = []
    for module, channel_count in normalizations.items():
        parent, _, leaf = module.rpartition(".")
        if not leaf.isdecimal() or len(leaf) > 9 or leaf == "0":
            continue
        before = f"{parent}.{int(leaf) - 1}" if parent else str(int(leaf) - 1)
        convolution = by_module.get(before)
        if convolution is None:
            continue
        if channel_count == convolution.output_count:
            pairs.append((convolution, module))
        elif channel_count == convolution.shape[1] and not convolution.is_transposed:
            # What follows has as many channels as the second axis: a transposed convolution.
            turned = dataclasses.replace(convolution, is_transposed=True, groups=1)
            pairs.append((turned, module))
    return pairs


def _by_names(
    by_module: Mapping[str, Convolution], normalizations: Mapping[str, int]
) -> list[tuple[Convolution, str]]:
    of_naming: dict[tuple[str, str], list[tuple[Convolution, str]]] = defaultdict(list)
    for module in normalizations:
        parent, dot, leaf = module.rpartition(".")
        for word, partner in _PARTNERS:
            convolution = by_module.get(parent + dot + re.sub(word, partner, leaf, count=1))
            if word in leaf and convolution is not None:
                of_naming[word, partner].append((convolution, module))
                break
    pairs = []
    for named in of_naming.values():
        orders = {_order(convolution, normalizations[module]) for convolution, module in named}
        if "behind" in orders and "before" not in orders:
            pairs += [
                (convolution, module)
                for convolution, module in named
                if normalizations[module] == convolution.output_count
            ]
    return pairs


def _order(convolution: Convolution, channel_count: int) -> str:
    """Where lengths put a normalization: behind the convolution or before it, else nowhere."""
    is_output, is_input = (
        channel_count == count for count in (convolution.output_count, convolution.input_count)
    )
    if is_output == is_input:
        return ""
    return "behind" if is_output else "before"
