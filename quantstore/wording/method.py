"""What holds for every value: how batch normalization was treated, and what the noise imitates."""

from collections.abc import Sequence

from quantstore.wording.text import listed

WHICH_NOISE = (
    "The noise imitates what the input is for: drawn scenes for images, vowels for sound, text for"
    " bytes. Other inputs get random numbers, and their values are provisional."
)
FOLDED = (
    "Batch normalization is folded into the convolution before it, as a compiler does, where the"
    " graph allows it"
)
NOT_FOLDED = (
    "Batch normalization is not folded (--no-fold): these are the weights as they are stored."
)


def folding(model_count: int, unfolded: Sequence[str]) -> str:
    """What became of batch normalization.

    Args:
        unfolded: those of the models that were measured without folding it.
    """
    if len(unfolded) == model_count:
        return NOT_FOLDED
    return f"{FOLDED}; {not_folded_in(unfolded)}" if unfolded else f"{FOLDED}."


def not_folded_in(models: Sequence[str]) -> str:
    """That batch normalization is not folded in these models."""
    return (
        f"not so in {listed(models)} (--no-fold): there these are the weights as they are stored."
    )
