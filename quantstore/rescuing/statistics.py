"""What the calibration samples hold beyond ranges: some values by channel, and inputs of layers."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from quantstore.numerics.patches import windows
from quantstore.records import Array, Floats
from quantstore.rescuing.rows import Rows
from quantstore.run.inputs import Samples
from quantstore.run.network import Network
from quantstore.run.nodes import Node, attribute
from quantstore.run.ranges import BLOCK_BYTES
from quantstore.run.relay import Relay, packed, rounds

# Positions of a tensor that are kept of each sample: enough for the shape of a distribution.
_POSITIONS = 512
# Inputs of a layer that are kept of each sample, and of how many samples.
_PATCHES, _PATCH_SAMPLES = 500, 4


def tensors_of(
    network: Network, names: Iterable[str], samples: Samples, folder: Path
) -> Iterator[tuple[int, str, Array]]:
    """Tensors of the float network: number of the sample, name, values; in bounded memory.

    Raises:
        RunError: onnxruntime stops.
    """
    tensor_names = list(dict.fromkeys(names))
    fed_names = [name for name in tensor_names if name in network.inputs]
    computed = [name for name in tensor_names if name in network.tensors]
    blocks = packed(computed, network.bytes_of, BLOCK_BYTES)
    relay = Relay(network.model, blocks, folder, "values")
    for indices in rounds(len(samples), lambda: relay.most_bytes):
        for index in indices:
            sample = samples[index] if fed_names else {}
            yield from ((index, name, sample[name]) for name in fed_names)
        for number in range(len(blocks)):
            relay.open(number)
            for index in indices:
                for name, array in relay.run(index, network.fed(samples[index])).items():
                    yield index, name, array


def values_by_channel(
    network: Network, names: Iterable[str], samples: Samples, folder: Path
) -> dict[str, Floats]:
    """Some values of each tensor, at the same positions of all channels: ``(count, channels)``."""
    rng = np.random.default_rng(0)
    kept: dict[str, list[Floats]] = {}
    for _, name, array in tensors_of(network, names, samples, folder):
        flat = np.moveaxis(array, 1, -1).reshape(-1, array.shape[1])
        chosen = rng.integers(0, len(flat), min(_POSITIONS, len(flat)))
        kept.setdefault(name, []).append(flat[chosen].astype(np.float32))
    return {name: np.concatenate(arrays) for name, arrays in kept.items()}


def inputs_of_layers(
    network: Network, layers: Mapping[str, Rows], samples: Samples, folder: Path
) -> dict[str, list[Floats]]:
    """Some inputs of each layer, by the name of its weights: one array of rows for each group.

    A row is what one row of weights is multiplied with: ``(count, inputs)``.
    """
    few = samples.some(range(min(_PATCH_SAMPLES, len(samples))))
    by_tensor: dict[str, list[str]] = {}
    for name, rows in layers.items():
        by_tensor.setdefault(rows.node.input[0], []).append(name)
    rng = np.random.default_rng(0)
    kept: dict[str, list[list[Floats]]] = {}
    for _, tensor, array in tensors_of(network, by_tensor, few, folder):
        for name in by_tensor[tensor]:
            rows = layers[name]
            if rows.node.op_type == "Conv":
                groups = _patches(rows.node, array, rows.shape, rng)
            else:
                flat = array.reshape(-1, array.shape[-1])
                groups = [flat[rng.integers(0, len(flat), min(_PATCHES, len(flat)))]]
            kept.setdefault(name, []).append([np.asarray(part, np.float32) for part in groups])
    return {
        name: [np.concatenate(arrays) for arrays in zip(*of_samples, strict=True)]
        for name, of_samples in kept.items()
    }


def _patches(
    node: Node, array: Array, shape: Sequence[int], rng: np.random.Generator
) -> list[Array]:
    """Inputs of a convolution at positions drawn at random, by group."""
    rank = len(shape) - 2
    strides = attribute(node, "strides", [1] * rank)
    views = windows(
        array[0],
        shape[2:],
        strides=strides,
        dilations=attribute(node, "dilations", [1] * rank),
        pads=attribute(node, "pads", [0] * 2 * rank),
    )
    positions = views.shape[1 : rank + 1]
    count = int(np.prod(positions))
    chosen = np.unravel_index(rng.integers(0, count, min(_PATCHES, count)), positions)
    # (count, channels, *kernel): the order of the weights.
    everything: Any = slice(None)
    patches = np.moveaxis(views[(everything, *chosen)], 0, 1)
    depth = shape[1]
    return [
        patches[:, start : start + depth].reshape(len(patches), -1)
        for start in range(0, patches.shape[1], depth)
    ]
