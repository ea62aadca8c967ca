"""A model run block by block, each operator once: what a later block needs is handed on by disk.

Observing every tensor at once would take as much memory as all tensors together, and running the
whole model again for each block would take as many times as long.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx
from onnx import helper

from quantstore.process.memory import give_back
from quantstore.records import Array
from quantstore.run.nodes import key_of, producers, read_by
from quantstore.run.runtime import Feeds, Session

Packed = TypeVar("Packed")

# What is handed on for all samples of a round; /tmp can be memory.
ROOM_BYTES = 512 << 20
# They give lists of tensors, or none, which have no file format: computed again where needed.
_NO_TENSORS = ("Sequence", "SplitToSequence", "ConcatFromSequence", "Optional")


@dataclass(slots=True)
class BlockPlan:
    """The nodes of a block, by what :func:`key_of` makes of them.

    ``inherited`` are tensors of earlier blocks that it reads, ``requested`` its outputs, ``handed``
    what it must give to later blocks, ``last_read`` what no later block reads.
    """

    nodes: set[str] = field(default_factory=set)
    inherited: set[str] = field(default_factory=set)
    requested: tuple[str, ...] = ()
    handed: set[str] = field(default_factory=set)
    last_read: set[str] = field(default_factory=set)


def block_plans(model: Any, blocks: Sequence[Sequence[str]]) -> list[BlockPlan]:
    """How to compute the tensors of each block, in order, from what the blocks before computed."""
    made_by = producers(model)
    made_in: dict[str, int] = {}
    plans: list[BlockPlan] = []
    for number, block in enumerate(blocks):
        plan = BlockPlan(requested=tuple(dict.fromkeys(block)))
        waiting, seen = list(plan.requested), set()
        while waiting:
            name = waiting.pop()
            node = made_by.get(name)
            if name in seen or node is None:
                continue
            seen.add(name)
            key = key_of(node)
            if key in made_in and made_in[key] < number and _is_tensor(node):
                plan.inherited.add(name)
                plans[made_in[key]].handed.add(name)
            elif key not in plan.nodes:
                plan.nodes.add(key)
                waiting.extend(read_by(node))
        for key in plan.nodes:
            made_in.setdefault(key, number)
        plans.append(plan)
    last: dict[str, int] = {}
    for number, plan in enumerate(plans):
        last |= dict.fromkeys(plan.inherited, number)
    for name, number in last.items():
        plans[number].last_read.add(name)
    return plans


class Relay:
    """One model on its way through its blocks, for a few samples at a time."""

    def __init__(
        self, model: Any, blocks: Sequence[Sequence[str]], folder: Path, name: str
    ) -> None:
        """Plan the blocks.

        Args:
            model: its weights are inputs, fed with every sample.
            folder: for what is handed on, in files that begin with ``name``.
        """
        self._model, self._folder, self._name = model, folder, name
        self._plans = block_plans(model, blocks)
        self._initializers = {tensor.name for tensor in model.graph.initializer}
        self._files: dict[tuple[int, str], Path] = {}
        self._bytes: dict[tuple[int, str], int] = {}
        self._types: dict[str, int] = {}
        self._file_numbers: dict[str, int] = {}
        self._number = 0
        self._session: Session | None = None
        self.most_bytes = 0

    def open(self, number: int) -> None:
        """Load a block, unless it is open; those before it were run for all samples of this round.

        Raises:
            RunError: onnxruntime refuses it.
        """
        if self._session is not None and number == self._number:
            return
        self._number, self._session = number, None
        give_back()
        plan = self._plans[number]
        if plan.nodes:
            self._session = Session(self._model_of(plan), is_optimized=False)

    def run(self, index: int, feed: Feeds) -> dict[str, Array]:
        """The tensors of the open block, by name, for one sample.

        Raises:
            RunError: onnxruntime stops.
        """
        plan = self._plans[self._number]
        inherited = {name: np.load(self._files[index, name]) for name in plan.inherited}
        tensors = {name: inherited[name] for name in plan.requested if name in inherited}
        if self._session is not None:
            outputs = self._session.run({**feed, **inherited})
            computed = dict(zip(self._session.outputs, outputs, strict=True))
            for name in plan.handed:
                self._keep(index, name, computed[name])
            tensors |= {name: computed[name] for name in plan.requested if name in computed}
        for name in plan.last_read:
            self._files.pop((index, name)).unlink()
            del self._bytes[index, name]
        return tensors

    def _keep(self, index: int, name: str, array: Array) -> None:
        self._types.setdefault(name, helper.np_dtype_to_tensor_dtype(array.dtype))
        # Names of tensors are no names of files.
        file_number = self._file_numbers.setdefault(name, len(self._file_numbers))
        path = self._folder / f"{self._name}-{index}-{file_number}.npy"
        np.save(path, array)
        self._files[index, name] = path
        self._bytes[index, name] = array.nbytes
        kept = sum(size for (sample, _), size in self._bytes.items() if sample == index)
        self.most_bytes = max(self.most_bytes, kept)

    def _model_of(self, plan: BlockPlan) -> Any:
        model = self._model
        nodes = [node for node in model.graph.node if key_of(node) in plan.nodes]
        read = {name for node in nodes for name in read_by(node)}
        block_model = onnx.ModelProto()
        block_model.ir_version = model.ir_version
        block_model.opset_import.extend(model.opset_import)
        block_model.functions.extend(model.functions)
        block_model.graph.name = f"block {self._number}"
        block_model.graph.node.extend(nodes)
        block_model.graph.initializer.extend(t for t in model.graph.initializer if t.name in read)
        block_model.graph.input.extend(
            value
            for value in model.graph.input
            if value.name in read and value.name not in self._initializers
        )
        block_model.graph.input.extend(
            helper.make_tensor_value_info(name, self._types[name], None)
            for name in sorted(plan.inherited & read)
        )
        computed = {name for node in nodes for name in node.output}
        block_model.graph.output.extend(
            # Without a type: the runtime infers it.
            onnx.ValueInfoProto(name=name)
            for name in dict.fromkeys([*plan.requested, *sorted(plan.handed)])
            if name in computed
        )
        return block_model


def rounds(count: int, most_bytes: Callable[[], int]) -> Iterator[range]:
    """Samples in rounds: one at first, then as many as there is room to hand on for."""
    start, size = 0, 1
    while start < count:
        chosen = range(start, min(start + size, count))
        yield chosen
        start = chosen.stop
        size = max(1, ROOM_BYTES // max(1, most_bytes()))


def packed(
    items: Sequence[Packed], cost: Callable[[Packed], int], room_bytes: int
) -> list[list[Packed]]:
    """Items in order, as many at a time as there is room for, at least one."""
    blocks: list[list[Packed]] = []
    room = 0
    for item in items:
        if not blocks or cost(item) > room:
            blocks.append([])
            room = room_bytes
        blocks[-1].append(item)
        room -= cost(item)
    return blocks


def _is_tensor(node: Any) -> bool:
    return not node.op_type.startswith(_NO_TENSORS)
