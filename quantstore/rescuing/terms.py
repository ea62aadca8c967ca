"""What a rescue may do, and its defaults: for whoever offers the choice. Needs nothing heavy."""

from quantstore.schemes import TARGETS, Target

# What a rescue may do, in the words of ``--allow``.
REMEDIES = {
    "depthwise": "a scale per channel at the inputs of depthwise convolutions",
    "ranges": "activation ranges from the best calibration method",
    "equalize": "channel scales moved through ReLU into the convolution before",
    "rounding": "weights rounded so that their errors compensate each other",
    "mul": "a Mul before a depthwise convolution, if its scales cannot be folded",
    "int16": "16-bit activations for the most sensitive tensors",
    "float": "float for the most sensitive tensors and weights",
}
# Activations leave quantized arithmetic with one of these.
PROMOTIONS = ("int16", "float")
DEFAULT_REACH_DB = 20.0
DEFAULT_KEEP_MACS = 0.9
DEFAULT_BUDGET_SECONDS = 120.0


def _can_be_rescued(target: Target) -> bool:
    activations = target.activations
    return activations is not None and not activations.is_dynamic


RESCUE_TARGETS = tuple(name for name, target in TARGETS.items() if _can_be_rescued(target))
