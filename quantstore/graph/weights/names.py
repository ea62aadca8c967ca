"""What a tensor of a PyTorch state dict is, told by its name, its shape and its neighbours.

No graph says it. A weight of rank 2 is a matrix, one of rank 3 to 5 the kernel of a convolution;
words in the name of its module make it an embedding or a normalization, and the length of its bias
tells on which axis the output channels are.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

_WEIGHT = "weight"
# Modules that hold several matrices name each of them: MultiheadAttention.
_MATRICES = tuple(f"{part}_proj_weight" for part in ("in", "q", "k", "v"))
_RECURRENT = re.compile(r"weight_ih_(l\d+(?:_reverse)?)")
_GATES = {4: "LSTM", 3: "GRU", 1: "RNN"}
_EMBEDDING_WORDS = frozenset(("emb", "embed", "embedding", "embeddings", "wpe", "wte"))
# Of an embedding's name: then it is a matrix all the same.
_MATRIX_WORDS = frozenset(("head", "linear", "out", "proj", "projection"))
_NORMALIZATION_WORDS = frozenset(("bn", "ln"))
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")


@dataclass(frozen=True, slots=True)
class Convolution:
    """The kernel of a convolution. Which of its channels are grouped the file does not say."""

    module: str
    tensor: str
    shape: Shape
    is_transposed: bool = False
    groups: int = 1

    @property
    def output_count(self) -> int:
        """Output channels."""
        return self.shape[1] * self.groups if self.is_transposed else self.shape[0]

    @property
    def input_count(self) -> int:
        """Input channels."""
        return self.shape[0] if self.is_transposed else self.shape[1] * self.groups


@dataclass(frozen=True, slots=True)
class Matrix:
    """``is_turned``: output channels are columns."""

    module: str
    tensor: str
    is_turned: bool = False


@dataclass(frozen=True, slots=True)
class Embedding:
    """A table of vectors."""

    module: str
    tensor: str


@dataclass(frozen=True, slots=True)
class Recurrent:
    """One direction of a recurrent layer."""

    module: str
    op_type: str
    of_input: str
    of_state: str


LooseLayer = Convolution | Matrix | Embedding | Recurrent


def layers_in(shapes: Shapes) -> Iterator[LooseLayer]:
    """The layers of a state dict, in the order of their names, numbers counted as such."""
    for name in sorted(shapes, key=_by_number):
        module, _, leaf = name.rpartition(".")
        if recurrent := _RECURRENT.fullmatch(leaf):
            layer: LooseLayer | None = _recurrent(module, recurrent[1], name, shapes)
        elif leaf == _WEIGHT:
            layer = _of_weight(module, name, shapes)
        elif leaf in _MATRICES and len(shapes[name]) == 2:
            layer = Matrix(name.removesuffix("_weight"), name)
        else:
            layer = None
        if layer is not None:
            yield layer


def normalizations_in(shapes: Shapes) -> list[str]:
    """The modules of BatchNormalizations: alone they keep a running variance."""
    names = sorted(shapes, key=_by_number)
    ends = [name.rpartition(".") for name in names]
    return [module for module, _, leaf in ends if leaf == "running_var"]


def is_normalization(module: str, shapes: Shapes) -> bool:
    """Whether a module scales what passes through it, element by element."""
    leaf_words = words_in(module.rpartition(".")[2])
    weight, bias = (shapes.get(member(module, name)) for name in (_WEIGHT, "bias"))
    return (
        any(word in _NORMALIZATION_WORDS or word.endswith("norm") for word in leaf_words)
        # A layer has one bias for each output channel, never one for each weight.
        or (weight is not None and len(weight) > 1 and bias == weight)
    )


def member(module: str, name: str) -> str:
    """A tensor of a module."""
    return f"{module}.{name}" if module else name


def words_in(leaf: str) -> list[str]:
    """The words in a name, in lower case, without numbers."""
    return [word.lower() for word in _WORD.findall(leaf)]


def _of_weight(module: str, name: str, shapes: Shapes) -> LooseLayer | None:
    shape, bias = shapes[name], shapes.get(member(module, "bias"))
    title = module or name
    if is_normalization(module, shapes) or 0 in shape:
        return None
    if len(shape) == 2:
        leaf_words = set(words_in(module.rpartition(".")[2]))
        if leaf_words & _EMBEDDING_WORDS and not leaf_words & _MATRIX_WORDS:
            return Embedding(title, name)
        if bias is None or bias == shape[:1]:
            return Matrix(title, name)
        return Matrix(title, name, is_turned=True) if bias == shape[1:] else None
    if not 3 <= len(shape) <= 5:
        return None
    # One input channel for each group: MobileNet's depthwise convolutions are stored so.
    conv = Convolution(title, name, shape, groups=shape[0] if shape[1] == 1 else 1)
    if bias is None or bias == shape[:1]:
        return conv
    groups, rest = divmod(bias[0], shape[1]) if len(bias) == 1 else (0, 1)
    if rest or not groups or shape[0] % groups:
        return None
    return Convolution(title, name, shape, is_transposed=True, groups=groups)


def _recurrent(module: str, end: str, of_input: str, shapes: Shapes) -> Recurrent | None:
    of_state = member(module, f"weight_hh_{end}")
    # With a projection the state is shorter than the layer is wide.
    projected = shapes.get(member(module, f"weight_hr_{end}"))
    rows, columns = shapes[of_input], shapes.get(of_state, ())
    if len(rows) != 2 or len(columns) != 2 or rows[0] != columns[0]:
        return None
    width = projected[-1] if projected else columns[1]
    gates, rest = divmod(rows[0], width) if width else (0, 1)
    op_type = _GATES.get(gates)
    if op_type is None or rest:
        return None
    return Recurrent(member(module, end), op_type, of_input, of_state)


def _by_number(name: str) -> list[tuple[int, int, str]]:
    """A key by which ``layers.2`` comes before ``layers.10``."""
    return [
        (0, int(part), "") if part.isdecimal() and len(part) < 19 else (1, 0, part)
        for part in re.split(r"(\d+)", name)
        if part
    ]
