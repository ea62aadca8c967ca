"""A float model in, a network ready to be run out: folded, its weights apart from its graph.

onnxruntime's basic optimizations run first (constants are computed, BatchNormalization is folded),
as its quantizer asks for: what is rounded later is what an int8 runtime would see. The weights of
every layer then become inputs of the graph, so that one session runs any weights, and a network
whose weights exceed the 2 GB of a protobuf file still fits.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from quantstore.errors import NoLayersError
from quantstore.records import Array, Doubles
from quantstore.run import twin
from quantstore.run.nodes import Node, consumers, every_node
from quantstore.run.runtime import Feeds, Session, TensorFacts, quantizable
from quantstore.schemes import Scheme

logger = logging.getLogger(__name__)

_FLOAT = onnx.TensorProto.FLOAT
# Of constants that are no weights, larger ones are fed as well: a protobuf file has 2 GB of room.
_INLINE_BYTES = 1 << 20
# A tensor whose size nobody knows before the run.
_UNKNOWN_BYTES = 8 << 20


@dataclass(frozen=True)
class Network:
    """What is run.

    ``model``: the graph; large constants are inputs of it, fed from ``constants``. ``layers``: the
    slots of their weights, which ``constants`` holds by the name of ``slot.value``.
    ``outputs``: names of the tensors that are compared.
    """

    model: onnx.ModelProto
    constants: Mapping[str, Array]
    floats: twin.FloatModel
    layers: twin.Lifted
    outputs: tuple[str, ...]

    @cached_property
    def observing(self) -> Session:
        """The network with every computed tensor of its main graph among the outputs."""
        names = tuple(name for node in self.model.graph.node for name in node.output if name)
        observed = onnx.ModelProto()
        observed.CopyFrom(self.model)
        del observed.graph.output[:]
        observed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        return Session(observed, is_optimized=False)

    @cached_property
    def tensors(self) -> Mapping[str, TensorFacts]:
        """Type and shape of these tensors: onnxruntime's own, for it always knows."""
        return self.observing.facts()

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """What a sample must feed."""
        return tuple(
            value.name for value in self.model.graph.input if value.name not in self.constants
        )

    @cached_property
    def float_tensors(self) -> frozenset[str]:
        """Inputs and computed tensors that hold floats: what can be rounded while it runs."""
        fed = {
            value.name
            for value in self.model.graph.input
            if value.name not in self.constants and value.type.tensor_type.elem_type == _FLOAT
        }
        return frozenset(fed | {name for name, facts in self.tensors.items() if facts.is_float})

    @cached_property
    def readers(self) -> Mapping[str, list[Node]]:
        """The nodes that read a tensor (``nodes.consumers``)."""
        return consumers(self.model)

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes of the graph and of the bodies in it (``nodes.every_node``)."""
        return tuple(every_node(self.model.graph))

    @cached_property
    def slot_of(self) -> dict[str, twin.Slot]:
        """The slot by the name under which its weights are fed."""
        return {str(slot.value.name): slot for slot in self.layers.slots}

    @cached_property
    def float_constants(self) -> dict[str, Array]:
        """Float initializers that are left in the graph, and those that are fed, but no weights."""
        kept = {
            tensor.name: numpy_helper.to_array(tensor)
            for tensor in self.model.graph.initializer
            if tensor.data_type == _FLOAT
        }
        fed = {name: array for name, array in self.constants.items() if name not in self.slot_of}
        return kept | fed

    @cached_property
    def session(self) -> Session:
        """The network as it is; fed with :meth:`fed`."""
        return Session(self.model, is_optimized=False)

    def require_runnable(self) -> None:
        """Have onnxruntime refuse it now, if at all.

        Raises:
            RunError: onnxruntime refuses the model.
        """
        logger.debug("a network of %d tensors", len(self.tensors))

    def bytes_of(self, name: str) -> int:
        """How large a tensor is, as a guess where its shape is not known."""
        facts = self.tensors.get(name)
        nbytes = None if facts is None else facts.nbytes
        return _UNKNOWN_BYTES if nbytes is None else nbytes

    def constant(self, name: str) -> Array:
        """A float constant, of a layer or another one."""
        return self.constants[name] if name in self.constants else self.float_constants[name]

    def fed(self, sample: Feeds) -> dict[str, Array]:
        """Everything that :meth:`session` wants to be fed."""
        return {**self.constants, **sample}

    def named_outputs(self, sample: Feeds) -> dict[str, Array]:
        """The compared tensors of a sample, in float."""
        return dict(
            zip(self.outputs, self.session.run(self.fed(sample), self.outputs), strict=True)
        )

    def rounded(
        self, slot: twin.Slot, scheme: Scheme, least_scale: Doubles | None = None
    ) -> twin.RoundedWeights:
        """A layer's weights on the grid of a scheme, as :attr:`constants` holds them in float."""
        return twin.rounded_weights(self.floats, slot, scheme, least_scale)


def prepare(
    model: onnx.ModelProto, outputs: tuple[str, ...], folder: Path, *, fold: bool
) -> Network:
    """Fold, optimize and take apart.

    Args:
        model: with its shapes fixed, as far as they are known.
        outputs: names of the tensors that are compared, outputs of the model.
        folder: for files; nobody else writes there.

    Raises:
        RunError: onnxruntime refuses the model.
    """
    return taken_apart(optimized(model, folder, fold=fold), outputs, fold=fold)


def optimized(
    model: onnx.ModelProto, folder: Path, *, fold: bool, keeps_shapes: bool = True
) -> twin.FloatModel:
    """A float model after onnxruntime's basic optimizations.

    Args:
        keeps_shapes: whether it says the types and shapes of its tensors, for files that are made
            of it; whoever runs it asks a session (``Network.tensors``).

    Raises:
        RunError: onnxruntime refuses the model.
    """
    path = quantizable(model, folder, fold=fold)
    proto = onnx.load_model(path, load_external_data=False)
    if not keeps_shapes:
        del proto.graph.value_info[:]
    return twin.own_float_model(proto, path)


def taken_apart(
    floats: twin.FloatModel, outputs: tuple[str, ...], *, fold: bool, needs_layers: bool = True
) -> Network:
    """A folded and optimized model, its weights apart from its graph; it is changed in place.

    Raises:
        NoLayersError: it has no layers, although ``needs_layers``.
        RunError: onnxruntime refuses the model.
    """
    try:
        lifted = twin.lift_weights(floats, fold=fold)
    except NoLayersError:
        if needs_layers:
            raise
        lifted = twin.Lifted((), ())
    constants = {str(slot.value.name): twin.float_weights(slot) for slot in lifted.slots}
    twin.weights_as_inputs(floats, lifted.slots)
    model = twin.to_proto(floats)
    constants |= _large_constants_as_inputs(model)
    network = Network(model, constants, floats, lifted, outputs)
    network.require_runnable()
    return network


def _large_constants_as_inputs(model: onnx.ModelProto) -> dict[str, Array]:
    """Move float constants that are no weights out of the graph, in place."""
    large = {
        tensor.name: np.array(numpy_helper.to_array(tensor))
        for tensor in model.graph.initializer
        if tensor.data_type == _FLOAT and 4 * int(np.prod(tensor.dims)) > _INLINE_BYTES
    }
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in large]
    copies = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
    del model.graph.initializer[:]
    model.graph.initializer.extend(copies)
    model.graph.input.extend(
        helper.make_tensor_value_info(name, _FLOAT, array.shape) for name, array in large.items()
    )
    return large
