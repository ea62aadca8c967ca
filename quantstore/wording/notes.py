"""Notes below tables of verdicts, as HTML: what the words in them rest on."""

BAND_NOTE = (
    "The strip shows the layers by band: the SQNR (signal to quantization noise) that 90 %"
    " of a layer's output channels reach. The limits are provisional."
)
WHAT_WEIGHTS_PROVE = "Weights can prove that a model is broken, never that it is fine."
WEIGHTS_NOTE = f"<i>Weights only</i>: the model was not run. {WHAT_WEIGHTS_PROVE}"
REPORT_WEIGHTS_NOTE = WEIGHTS_NOTE
RUN_NOTE = (
    "<i>On your inputs</i>: the model and its int8 version were run on data of your own, with"
    " activation ranges from other samples of it."
)

WHAT_THE_PROBE_IS = (
    "<i>Estimated with noise</i>: the model and its int8 version were run on the same noise, and"
    " the SQNR at their worst output is judged by the same limits. The lower value of full int8 and"
    " weights alone counts."
)
CONFIRM_IT = "Confirm close calls with your own data."
SHORT_PROBE_NOTE = f"{WHAT_THE_PROBE_IS} {CONFIRM_IT}"
PROBE_NOTE = (
    f"{WHAT_THE_PROBE_IS} On 14 image networks full int8 was 1.0 dB (median) and at most 2.9 dB"
    " away from the run on photographs per tensor, 1.0 dB and at most 3.5 dB per channel. Other"
    f" kinds of inputs may differ more. {CONFIRM_IT}"
)

UNTESTED_NOTE = (
    "<i>Untested</i>: nobody has measured this target, or the test was cut off or failed. Weights"
    " alone can prove a loss, never that there is none."
)

ALREADY_QUANTIZED_NOTE = (
    "<i>Stored as integers</i>: the file holds weights that were rounded before. What is shown is"
    " the loss of a second rounding; what the first one lost is unknown."
)
