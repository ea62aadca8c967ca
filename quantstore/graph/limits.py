"""How much a file may ask for: what is 3 kB on disk can unfold to more than any machine holds.

Each limit lies far beyond what a real network needs. A graph that exceeds one is refused in a
sentence.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import onnx

from quantstore.errors import ModelFileError

# Protobuf itself allows about 33 subgraphs inside one another, but functions call functions.
MOST_LEVELS = 100
# Nodes after every call of a local function is replaced by what the function holds.
MOST_NODES = 200_000
# A name is written out with the names of everything around it.
MOST_NAME_CHARACTERS = 500_000_000
# The narrowest type has two bits for a value, and a boolean list may be shorter still.
_MOST_VALUES_PER_BYTE = 8
# A sparse tensor declares what it takes as a dense one, whatever little it stores. Of a whole file:
# half a gigabyte as float32.
MOST_SPARSE_ELEMENTS = 1 << 27

_AGAIN = "export the model again"


def require_bounded(
    model: onnx.ModelProto, apart: Mapping[str, int] = MappingProxyType({})
) -> None:
    """Refuse a graph that is small in the file and endless when it is followed.

    Args:
        apart: how many bytes of an initializer lie outside the message, by its name.

    Raises:
        ModelFileError: local functions that call themselves, or that unfold to too many nodes or
            too deep a nest; a tensor with impossible dimensions.
    """
    _Unfolding(model).of_graph(model.graph.node, 0)
    _require_few_sparse_values(model)
    for function in model.functions:
        for node in function.node:
            _require_possible_attributes(node)
    _require_possible_tensors(model.graph, apart)


@dataclass(frozen=True, slots=True)
class _Size:
    """What a graph unfolds to; ``characters`` of all names relative to it."""

    nodes: int
    characters: int


class _Unfolding:
    """Counts what calls of local functions unfold to, each function once."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._functions = {_key(f.domain, f.name, f.overload): f for f in model.functions}
        self._sizes: dict[tuple[str, str, str], _Size] = {}
        self._open: set[tuple[str, str, str]] = set()

    def of_graph(self, nodes: Sequence[onnx.NodeProto], level: int) -> _Size:
        if level > MOST_LEVELS:
            raise ModelFileError(
                f"its subgraphs and local functions are nested more than {MOST_LEVELS} deep", _AGAIN
            )
        count = characters = 0
        for node in nodes:
            inside = [
                self.of_graph(graph.node, level + 1)
                for attribute in node.attribute
                for graph in subgraphs(attribute)
            ]
            key = _key(node.domain, node.op_type, node.overload)
            if key in self._functions:
                inside.append(self._of_function(key, level + 1))
            name = len(node.name) + sum(map(len, node.output[:1])) + 32
            below = sum(size.nodes for size in inside)
            count += 1 + below
            characters += name * (1 + below) + sum(size.characters for size in inside)
            if count > MOST_NODES:
                raise ModelFileError(
                    f"its local functions unfold to more than {MOST_NODES:,} nodes"
                    if self._functions
                    else f"it has more than {MOST_NODES:,} nodes",
                    _AGAIN,
                )
            if characters > MOST_NAME_CHARACTERS:
                raise ModelFileError("its node names are too long", _AGAIN)
        return _Size(count, characters)

    def _of_function(self, key: tuple[str, str, str], level: int) -> _Size:
        if key in self._open:
            raise ModelFileError(
                f"its local function {key[1]!r} calls itself, which ONNX does not allow", _AGAIN
            )
        if key not in self._sizes:
            self._open.add(key)
            self._sizes[key] = self.of_graph(self._functions[key].node, level)
            self._open.remove(key)
        return self._sizes[key]


def _key(domain: str, name: str, overload: str) -> tuple[str, str, str]:
    return ("" if domain == "ai.onnx" else domain, name, overload)


def subgraphs(attribute: onnx.AttributeProto) -> list[onnx.GraphProto]:
    """The graphs an attribute holds, whatever type it claims to have."""
    return [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def _require_possible_tensors(
    graph: onnx.GraphProto, apart: Mapping[str, int] = MappingProxyType({})
) -> None:
    for tensor in graph.initializer:
        _require_possible(tensor, tensor.name, apart.get(tensor.name, 0))
    for node in graph.node:
        _require_possible_attributes(node)


def _require_possible_attributes(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            _require_possible(attribute.t, attribute.t.name or node.name)
        for tensor in attribute.tensors:
            _require_possible(tensor, tensor.name or node.name)
        for subgraph in subgraphs(attribute):
            _require_possible_tensors(subgraph)


def _require_possible(tensor: onnx.TensorProto, name: str, bytes_apart: int = 0) -> None:
    """Refuse what no file can hold, before anything is allocated for it."""
    _require_positive(name, tensor.dims)
    # What lies in another file is compared with the length of that file.
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        require_room(name, math.prod(tensor.dims), bytes_apart or tensor.ByteSize())


def require_room(name: str | None, value_count: int, most_bytes: int) -> None:
    """Refuse a tensor of more values than so many bytes can hold, however they are packed.

    Raises:
        ModelFileError: saying how many values it declares.
    """
    if value_count > max(1, _MOST_VALUES_PER_BYTE * most_bytes):
        raise ModelFileError(
            f"tensor {name!r} does not hold the {value_count:,} values it declares",
            "export or download the model again",
        )


def _require_positive(name: str, dims: Sequence[int]) -> None:
    if any(size < 0 for size in dims):
        raise ModelFileError(f"tensor {name!r} declares negative dimensions {list(dims)}", _AGAIN)


def _require_few_sparse_values(model: onnx.ModelProto) -> None:
    total = 0
    functions = [node for function in model.functions for node in function.node]
    for sparse in (*_sparse_tensors(model.graph), *_sparse_in(functions)):
        name = sparse.values.name
        for part in (sparse.dims, sparse.values.dims, sparse.indices.dims):
            _require_positive(name, part)
        require_room(name, math.prod(sparse.values.dims), sparse.ByteSize())
        require_room(name, math.prod(sparse.indices.dims), sparse.ByteSize())
        total += math.prod(sparse.dims)
        if total > MOST_SPARSE_ELEMENTS:
            raise ModelFileError(
                f"sparse tensor {name!r} expands to {math.prod(sparse.dims):,} values; a file may"
                f" have at most {MOST_SPARSE_ELEMENTS:,} in sparse tensors",
                "store it as a dense tensor, or remove it",
            )


def _sparse_tensors(graph: onnx.GraphProto) -> Iterator[onnx.SparseTensorProto]:
    yield from graph.sparse_initializer
    yield from _sparse_in(graph.node)


def _sparse_in(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.SparseTensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("sparse_tensor"):
                yield attribute.sparse_tensor
            yield from attribute.sparse_tensors
            for subgraph in subgraphs(attribute):
                yield from _sparse_tensors(subgraph)
