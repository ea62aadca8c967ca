"""Layers that no file holds."""

import dataclasses

import numpy as np

from quantstore.layer import Layer


def linear_layer(weights, **changes):
    """A Gemm with weights ``(outputs, inputs)``, or whatever the changes make of it."""
    weights = np.asarray(weights, dtype=np.float32)
    layer = Layer(
        name="layer",
        operand="B",
        op_type="Gemm",
        op_family="linear",
        weight_name="w",
        weight_dtype="float32",
        shape=weights.shape,
        channel_axis=0,
        group_count=1,
        is_depthwise=False,
        batchnorm_folded=False,
        mul_folded=False,
        already_quantized=False,
        stored_scheme=None,
        stored_step=None,
        weight_key=(0,),
        weights=weights,
    )
    return dataclasses.replace(layer, **changes)
