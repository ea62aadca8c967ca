"""How the figures come about, in short, for somebody who has only this file."""

from collections.abc import Mapping, Sequence

from quantstore.report.markup import element, text
from quantstore.schemes import BLOCK_SIZE
from quantstore.wording.explanations import DECISIONS_SURVIVE
from quantstore.wording.remedies import FINE_DB, MOST_BITS
from quantstore.wording.text import listed

SOURCES = (
    ("ONNX QuantizeLinear", "onnx.ai/onnx/operators/onnx__QuantizeLinear.html"),
    (
        "TensorFlow Lite, quantization specification",
        "tensorflow.org/lite/performance/quantization_spec",
    ),
    ("Nagel et al. 2019, cross-layer equalization", "arxiv.org/abs/1906.04721"),
    (
        "W. R. Bennett, Spectra of Quantized Signals, 1948",
        "doi.org/10.1002/j.1538-7305.1948.tb01340.x",
    ),
)

WHICH_NOISE = (
    "The noise imitates what the input is for: drawn scenes for images, vowels for sound, text for"
    " bytes. Other inputs get random numbers, and their figures are provisional."
)
# As HTML.
FOLDED = (
    "Batch normalization is folded into the convolution before it, as a compiler does, where the"
    " graph allows it"
)
NOT_FOLDED = (
    "Batch normalization is not folded (<code>--no-fold</code>): these are the weights as they are"
    " stored."
)


def method(limits: Mapping[str, float], models: Sequence[str], unfolded: Sequence[str]) -> str:
    """The section on method; addresses are words, so that nothing in the file leads outside.

    Args:
        limits: the lower limit of each band in dB.
        models: what the report is about.
        unfolded: those of them that were measured without folding batch normalization.
    """
    at_risk, watch, fine = (f"{limits[band]:g}" for band in ("at risk", "watch", "fine"))
    paragraphs = (
        (
            "Weights",
            f"{_folding(models, unfolded)} Each tensor then goes through the grid and back:"
            " <code>q = clip(round(w / s) + z, q<sub>min</sub>, q<sub>max</sub>)</code>,"
            " <code>w′ = s (q − z)</code>. Symmetric: codes −127 to 127, <code>z = 0</code>,"
            " <code>s = max|w| / 127</code>. Asymmetric: codes 0 to 255,"
            " <code>s = (max(w, 0) − min(w, 0)) / 255</code>. Per tensor all weights share one"
            " <code>s</code>; per channel each output channel has its own.",
        ),
        (
            "SQNR and bands",
            "<code>SQNR = 10 log<sub>10</sub>(Σw² / Σ(w′ − w)²)</code> in dB, channel by channel; 6"
            " dB are one bit. One figure per tensor hides channels that are lost, so a layer is"
            " judged by what 90 % of its channels reach (p10):"
            f" below {at_risk} dB broken, to {watch} dB at risk, to {fine} dB to watch, from there"
            " on fine. The limits are provisional.",
        ),
        (
            "Noise probe",
            "The model and its int8 version are run by onnxruntime on the same noise, and the SQNR"
            " is taken at the outputs of the network (before a final Softmax), as the median over"
            f" the samples; the worst output decides. {WHICH_NOISE} It needs no data. A run on your"
            " own inputs takes its place. Without either a model is untested, unless its weights"
            f" alone prove a loss. {DECISIONS_SURVIVE}",
        ),
        (
            "What would rescue a layer",
            "<i>Per channel</i>: p10 under the per-channel scheme of the same symmetry."
            " <i>Clipped</i>: the range is cut where the squared error of the tensor is least."
            " <i>Equalized</i>: scale is moved between two neighbours, channel by channel, so that"
            " their ranges agree; a forecast from the weights, with the better neighbour alone."
            f" <i>Bits needed</i>: the fewest, up to {MOST_BITS}, with which p10 reaches"
            f" {FINE_DB:.0f} dB on a symmetric integer grid (a block is {BLOCK_SIZE} weights).",
        ),
        (
            "Range and spread",
            "Weight range is max − min. For one tensor alone only its shape counts: about"
            " <code>58.9 − 20 log<sub>10</sub>(2 max|w| / rms)</code> dB on a symmetric grid,"
            " <code>58.9 − 20 log<sub>10</sub>((max(w, 0) − min(w, 0)) / rms)</code> dB on an"
            " asymmetric one. What breaks a network is the <i>spread</i> between the channels that"
            " share a scale,"
            " <code>log<sub>2</sub>(widest range / median range)</code> in bits.",
        ),
    )
    body = "".join(
        f"<div><h3>{text(title)}</h3><p>{content}</p></div>" for title, content in paragraphs
    )
    sources = "; ".join(f"{text(title)}, <span>{text(where)}</span>" for title, where in SOURCES)
    return element(
        "section",
        element("h2", "How this was measured")
        + element("div", body, "method")
        + f'<p class="note">Sources: {sources}.</p>',
    )


def _folding(models: Sequence[str], unfolded: Sequence[str]) -> str:
    """What became of batch normalization, as HTML."""
    if len(unfolded) == len(models):
        return NOT_FOLDED
    return f"{FOLDED}; {not_folded_in(unfolded)}" if unfolded else f"{FOLDED}."


def not_folded_in(models: Sequence[str]) -> str:
    """That batch normalization is not folded in these models, as HTML."""
    return (
        f"not so in {text(listed(models))} (<code>--no-fold</code>): there these are the weights as"
        " they are stored."
    )
