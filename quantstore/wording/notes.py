"""Notes below tables of verdicts, as HTML: what the words in them rest on."""

BAND_NOTE = (
    "The strip shows how many layers are in each band. The band of a layer is set by the SQNR"
    " (signal-to-quantization-noise ratio) that 90 % of its output channels reach. The limits are"
    " provisional."
)
WHAT_WEIGHTS_PROVE = "Weights can prove that a model is broken, but not that it is fine."
WEIGHTS_NOTE = f"<i>Weights only</i>: the model was not run. {WHAT_WEIGHTS_PROVE}"
REPORT_WEIGHTS_NOTE = WEIGHTS_NOTE
RUN_NOTE = (
    "<i>On your inputs</i>: the model and its int8 version were run on your own data. Activation"
    " ranges were calibrated on other samples of that data."
)

WHAT_THE_PROBE_IS = (
    "<i>Estimated with noise</i>: the model and its int8 version were run on the same noise. The"
    " verdict rests on the SQNR at the worst output, in full int8 or with int8 weights only,"
    " whichever is lower."
)
CONFIRM_IT = "Confirm close calls with your own data."
SHORT_PROBE_NOTE = f"{WHAT_THE_PROBE_IS} {CONFIRM_IT}"
PROBE_NOTE = (
    f"{WHAT_THE_PROBE_IS} On 14 image networks, estimates for full int8 differed from runs on"
    " photographs by 1.0 dB per tensor (median; 2.9 dB at most) and by 1.0 dB per channel (3.5 dB"
    f" at most). Estimates for other kinds of inputs may be further off. {CONFIRM_IT}"
)

UNTESTED_NOTE = (
    "<i>Untested</i>: this target has not been measured, or the measurement failed or was stopped."
    " Weights alone can prove a loss, but not that there is none."
)

ALREADY_QUANTIZED_NOTE = (
    "<i>Stored as integers</i>: the weights in this file were rounded before. The values show the"
    " loss of a second rounding. The loss of the first one is unknown."
)
