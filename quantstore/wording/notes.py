"""Notes below tables of verdicts, as HTML: what the words in them rest on."""

BAND_NOTE = (
    "The strip shows the layers by band: the SQNR (signal to quantization noise) that nine in ten"
    " of a layer's output channels reach. The limits are provisional."
)
WHAT_WEIGHTS_PROVE = "Weights can prove that it breaks, never that it survives."
WEIGHTS_NOTE = f"<i>Weights alone</i>: the model was not run. {WHAT_WEIGHTS_PROVE}"
REPORT_WEIGHTS_NOTE = (
    "<i>Weights alone</i>: the model was not run, activations were not measured."
    f" {WHAT_WEIGHTS_PROVE}"
)

WHAT_THE_PROBE_IS = (
    "Figures <i>at the outputs</i> come from the noise probe: the float model and its quantized"
    " twin, <i>full int8</i> (weights and activations) or <i>weights only</i>, were run on the same"
    " noise, and the SQNR at their outputs is judged by the same limits. It needs no data and is an"
    " estimate:"
)
CONFIRM_IT = "confirm a close verdict with inputs of your own."
SHORT_PROBE_NOTE = f"{WHAT_THE_PROBE_IS} {CONFIRM_IT}"
PROBE_NOTE = (
    f"{WHAT_THE_PROBE_IS} full int8 on 14 image networks lay 1.1 dB (median) and at most 3.4 dB"
    " from the run on photographs per tensor, 1.3 dB and at most 9.2 dB per channel. Other kinds of"
    f" inputs may differ more: {CONFIRM_IT}"
)

UNTESTED_NOTE = (
    "<i>Untested</i>: weights and activations together were not measured, because the probe was cut"
    " off or failed. Figures of the weights alone can prove a loss, never that there is none."
)

ALREADY_QUANTIZED_NOTE = (
    "<i>Stored as integers</i>: the file holds weights that were rounded before. What is shown is"
    " the loss of a second rounding; the first loss is unknown."
)
