"""Targets: what hardware does with weights and activations, and what earlier runs were of."""

from dataclasses import replace

import pytest

from quantstore.schemes import (
    DEFAULT_TARGET,
    INT8_TENSOR_POWER_OF_TWO,
    RUN_SCHEMES,
    SCHEMES,
    TARGETS,
    target_of,
)

ROWS = {
    "int8_tensor": ("int8_tensor_symmetric", "uint8 asymmetric", "everywhere"),
    "int8_channel": ("int8_channel_symmetric", "uint8 asymmetric", "everywhere"),
    "int8_channel_fused": ("int8_channel_symmetric", "uint8 asymmetric", "mac_inputs"),
    "int8_channel_depthwise": (
        "int8_channel_symmetric",
        "uint8 asymmetric, per channel at inputs of depthwise convolutions",
        "mac_inputs",
    ),
    "int8_channel_symmetric_activations": (
        "int8_channel_symmetric",
        "int8 symmetric",
        "mac_inputs",
    ),
    "int8_tensor_power_of_two": (
        "int8_tensor_power_of_two",
        "int8, scale a power of two",
        "everywhere",
    ),
    "int8_channel_int16": ("int8_channel_symmetric", "uint16 asymmetric", "everywhere"),
    "int8_dynamic": ("int8_tensor_symmetric", "uint8, scale taken at run time", "linear_inputs"),
    "int8_weights": ("int8_channel_symmetric", None, "none"),
    "int4_weights": ("int4_block32_symmetric", None, "none"),
}


def test_a_target_is_a_scheme_a_grid_for_activations_and_a_placement():
    assert list(TARGETS) == list(ROWS)
    for name, target in TARGETS.items():
        activations = target.activations.title if target.activations else None
        assert (target.scheme.name, activations, target.placement) == ROWS[name]
        assert target.mode == ("weights" if activations is None else "both")
        assert (target.placement_title is None) == (activations is None)
        assert target.description.endswith(".")


def test_four_targets_are_measured_whenever_a_model_is_ingested():
    assert [name for name, target in TARGETS.items() if target.is_default] == [
        *("int8_tensor", "int8_channel", "int8_channel_fused", "int8_weights")
    ]
    assert TARGETS["int8_channel"] is DEFAULT_TARGET


def test_layers_are_not_measured_under_a_scale_that_is_a_power_of_two():
    assert INT8_TENSOR_POWER_OF_TWO.name not in SCHEMES
    assert RUN_SCHEMES.keys() - SCHEMES.keys() == {INT8_TENSOR_POWER_OF_TWO.name}


def test_activations_are_rounded_somewhere_or_not_at_all():
    with pytest.raises(ValueError, match="somewhere"):
        replace(DEFAULT_TARGET, placement="none")


@pytest.mark.parametrize(
    ("scheme", "mode", "target"),
    [
        ("int8_tensor_symmetric", "both", "int8_tensor"),
        ("int8_channel_symmetric", "both", "int8_channel"),
        ("int8_channel_symmetric", "weights", "int8_weights"),
        ("int4_block32_symmetric", "weights", "int4_weights"),
        ("int8_tensor_symmetric", "weights", None),
        ("int8_tensor_asymmetric", "both", None),
        ("int8_channel_symmetric", "activations", None),
    ],
)
def test_an_earlier_run_was_for_a_target_where_one_does_the_same(scheme, mode, target):
    assert target_of(scheme, mode) == target
