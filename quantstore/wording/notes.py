"""Notes below tables of verdicts, as HTML: what the words in them rest on."""

BAND_NOTE = (
    "The strip shows the layers by band: the SQNR (signal to quantization noise) that nine in ten"
    " of a layer's output channels reach. The limits are provisional."
)
WEIGHTS_NOTE = (
    "<i>Weights alone</i>: the model was not run. Weights can prove that it breaks, never that it"
    " survives."
)
PROBE_NOTE = (
    "Figures <i>at the outputs</i> come from the noise probe: the float model and its quantized"
    " twin, <i>full int8</i> (weights and activations) or <i>weights only</i>, were run on the same"
    " noise, and the SQNR at their outputs is judged by the same limits. It needs no data and is an"
    " estimate: full int8 on 14 image networks lay 1.1 dB (median) and at most 3.4 dB from the run"
    " on photographs per tensor, 1.3 dB and at most 9.2 dB per channel. Other kinds of inputs may"
    " differ more: confirm a close verdict with inputs of your own."
)

ALREADY_QUANTIZED_NOTE = (
    "<i>Stored as integers</i>: the file holds weights that were rounded before. What is shown is"
    " the loss of a second rounding; the first loss is unknown."
)
