"""A model run block by block, each operator once: what a later block needs is handed on by disk.

Observing every tensor at once would take as much memory as all tensors together, and running the
whole model again for each block would take as many times as long.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from quantstore.records import Array
from quantstore.run.runtime import Feeds, Session
from quantstore.run.surgery import key_of, producers, read_by

# What is handed on for all samples of a round; /tmp can be memory.
ROOM_BYTES = 512 << 20
# They give lists of tensors, or none, which have no file format: computed again where needed.
_NO_TENSORS = ("Sequence", "SplitToSequence", "ConcatFromSequence", "Optional")


@dataclass(slots=True)
class Part:
    """The nodes of a block, by what :func:`key_of` makes of them.

    ``given`` are tensors of earlier parts that it reads, ``wanted`` its outputs, ``handed`` what it
    must give to later parts, ``last_read`` what no later part reads.
    """

    nodes: set[str] = field(default_factory=set)
    given: set[str] = field(default_factory=set)
    wanted: tuple[str, ...] = ()
    handed: set[str] = field(default_factory=set)
    last_read: set[str] = field(default_factory=set)


def parts_of(model: Any, blocks: Sequence[Sequence[str]]) -> list[Part]:
    """How to compute the tensors of each block, in order, from what the blocks before computed."""
    made_by = producers(model)
    made_in: dict[str, int] = {}
    parts: list[Part] = []
    for number, block in enumerate(blocks):
        part = Part(wanted=tuple(dict.fromkeys(block)))
        waiting, seen = list(part.wanted), set()
        while waiting:
            name = waiting.pop()
            node = made_by.get(name)
            if name in seen or node is None:
                continue
            seen.add(name)
            key = key_of(node)
            if key in made_in and made_in[key] < number and _is_tensor(node):
                part.given.add(name)
                parts[made_in[key]].handed.add(name)
            elif key not in part.nodes:
                part.nodes.add(key)
                waiting.extend(read_by(node))
        for key in part.nodes:
            made_in.setdefault(key, number)
        parts.append(part)
    last: dict[str, int] = {}
    for number, part in enumerate(parts):
        last |= dict.fromkeys(part.given, number)
    for name, number in last.items():
        parts[number].last_read.add(name)
    return parts


class Relay:
    """One model on its way through its blocks, for a few samples at a time."""

    def __init__(
        self, model: Any, blocks: Sequence[Sequence[str]], folder: Path, name: str
    ) -> None:
        """Plan the blocks.

        Args:
            model: with its weights kept in ``folder``.
            name: of the files it writes there.
        """
        self._model, self._folder, self._name = model, folder, name
        self._parts = parts_of(model, blocks)
        self._initializers = {tensor.name for tensor in model.graph.initializer}
        self._files: dict[tuple[int, str], Path] = {}
        self._bytes: dict[tuple[int, str], int] = {}
        self._types: dict[str, int] = {}
        self._places: dict[str, int] = {}
        self._number = 0
        self._session: Session | None = None
        self.most_bytes = 0

    def open(self, number: int) -> None:
        """Load a block; those before it were run for all samples of this round.

        Raises:
            RunError: onnxruntime refuses it.
        """
        self._number, self._session = number, None
        part = self._parts[number]
        if part.nodes:
            path = self._folder / f"{self._name}-block.onnx"
            onnx.save(self._model_of(part), path)
            self._session = Session(path, is_optimized=False)

    def run(self, index: int, feed: Feeds) -> dict[str, Array]:
        """The tensors of the open block, by name, for one sample.

        Raises:
            RunError: onnxruntime stops.
        """
        part = self._parts[self._number]
        given = {name: np.load(self._files[index, name]) for name in part.given}
        found = {name: given[name] for name in part.wanted if name in given}
        if self._session is not None:
            outputs = self._session.run({**feed, **given})
            made = dict(zip(self._session.outputs, outputs, strict=True))
            for name in part.handed:
                self._keep(index, name, made[name])
            found |= {name: made[name] for name in part.wanted if name in made}
        for name in part.last_read:
            self._files.pop((index, name)).unlink()
            del self._bytes[index, name]
        return found

    def _keep(self, index: int, name: str, array: Array) -> None:
        self._types.setdefault(name, helper.np_dtype_to_tensor_dtype(array.dtype))
        # Names of tensors are no names of files.
        place = self._places.setdefault(name, len(self._places))
        path = self._folder / f"{self._name}-{index}-{place}.npy"
        np.save(path, array)
        self._files[index, name] = path
        self._bytes[index, name] = array.nbytes
        kept = sum(size for (one, _), size in self._bytes.items() if one == index)
        self.most_bytes = max(self.most_bytes, kept)

    def _model_of(self, part: Part) -> Any:
        model = self._model
        nodes = [node for node in model.graph.node if key_of(node) in part.nodes]
        read = {name for node in nodes for name in read_by(node)}
        found = onnx.ModelProto()
        found.ir_version = model.ir_version
        found.opset_import.extend(model.opset_import)
        found.functions.extend(model.functions)
        found.graph.name = f"block {self._number}"
        found.graph.node.extend(nodes)
        found.graph.initializer.extend(t for t in model.graph.initializer if t.name in read)
        found.graph.input.extend(
            value
            for value in model.graph.input
            if value.name in read and value.name not in self._initializers
        )
        found.graph.input.extend(
            helper.make_tensor_value_info(name, self._types[name], None)
            for name in sorted(part.given & read)
        )
        made = {name for node in nodes for name in node.output}
        found.graph.output.extend(
            # Without a type: the runtime infers it.
            onnx.ValueInfoProto(name=name)
            for name in dict.fromkeys([*part.wanted, *sorted(part.handed)])
            if name in made
        )
        return found


def rounds(count: int, most_bytes: Callable[[], int]) -> Iterator[range]:
    """Samples in rounds: one at first, then as many as there is room to hand on for."""
    start, size = 0, 1
    while start < count:
        chosen = range(start, min(start + size, count))
        yield chosen
        start = chosen.stop
        size = max(1, ROOM_BYTES // max(1, most_bytes()))


def _is_tensor(node: Any) -> bool:
    return not node.op_type.startswith(_NO_TENSORS)
