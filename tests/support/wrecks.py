"""Networks that int8 wrecks in one known way, and inputs for them."""

import numpy as np

from tests.support.graphs import float_value, gaussian, make_model, node, save

SIDE = 16


def inputs_file(path, count=16, channels=3, seed=0, side=SIDE):
    """An ``.npz`` of smooth random images."""
    random = np.random.default_rng(seed)
    fields = random.normal(size=(count, channels, side, side)).cumsum(axis=2).cumsum(axis=3)
    fields -= fields.mean(axis=(2, 3), keepdims=True)
    fields /= fields.std(axis=(1, 2, 3), keepdims=True)
    np.savez(path, x=fields.astype(np.float32))
    return path


def spread(count, factor=300.0):
    """Factors from 1 / factor to factor, in no order."""
    powers = np.random.default_rng(3).permutation(np.linspace(-1, 1, count))
    return (factor**powers).astype(np.float32)


def wreck(
    path,
    *,
    activation="Relu",
    factor=300.0,
    channels=8,
    has_branch=False,
    seed=0,
    opset=17,
):
    """Conv, activation, depthwise Conv, pointwise Conv; channels between them differ in scale.

    The function is that of a network without the factors: the depthwise kernels undo them. One
    scale for all channels loses the small ones. ``SiLU`` lets no factor pass.
    """
    scale = spread(channels, factor)[:, None, None, None]
    weights = {
        "w1": gaussian(channels, 3, 3, 3, seed=seed) / 5 * scale,
        "b1": gaussian(channels, seed=seed + 1) / 5 * scale.ravel(),
        "w2": gaussian(channels, 1, 3, 3, seed=seed + 2) / 3 / scale,
        "b2": gaussian(channels, seed=seed + 3) / 5,
        "w3": gaussian(4, channels, 1, 1, seed=seed + 4) / 3,
        "b3": gaussian(4, seed=seed + 5) / 5,
    }
    if activation == "SiLU":
        middle = [
            node("Sigmoid", ["h"], ["s"], "sigmoid"),
            node("Mul", ["h", "s"], ["a"], "silu"),
        ]
    else:
        middle = [node(activation, ["h"], ["a"], "act")]
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["h"], "stem", pads=[1, 1, 1, 1]),
        *middle,
        node("Conv", ["a", "w2", "b2"], ["d"], "depthwise", pads=[1, 1, 1, 1], group=channels),
        node("Relu", ["d"], ["e"], "relu"),
    ]
    last = "e"
    if has_branch:
        # Somebody else reads the depthwise input as well.
        weights["undo"] = 1 / scale.reshape(1, -1, 1, 1)
        nodes += [
            node("Mul", ["a", "undo"], ["u"], "undo"),
            node("Add", ["e", "u"], ["f"], "skip"),
        ]
        last = "f"
    nodes.append(node("Conv", [last, "w3", "b3"], ["y"], "head"))
    model = make_model(nodes, weights, opset=opset)
    model.graph.input[0].CopyFrom(float_value("x", ["n", 3, SIDE, SIDE]))
    return save(model, path)
