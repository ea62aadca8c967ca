"""What is probed: every scheme and mode that a model gets a figure for."""

# Schemes and modes that are probed, in this order.
PLAN = tuple(
    (scheme, mode)
    for mode, schemes in (
        (
            "weights",
            (
                "int8_tensor_symmetric",
                "int8_tensor_asymmetric",
                "int8_channel_symmetric",
                "int4_channel_symmetric",
            ),
        ),
        ("both", ("int8_tensor_symmetric", "int8_channel_symmetric")),
    )
    for scheme in schemes
)
