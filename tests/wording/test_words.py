"""How figures and verdicts are said. Names come from files that anybody can write.

Sentences stand here in full, one for each situation: this is their specification, and beside the
code that makes them the one place that a change of the English touches. Tests of pages, charts and
reports import what they expect to be shown.
"""

import html
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantstore.schemes import INT8_CHANNEL_SYMMETRIC, INT8_TENSOR_SYMMETRIC, LOST_DB, TARGETS
from quantstore.wording import causes, headlines, nodes, text, units
from quantstore.wording import remedies as remedy_words
from quantstore.wording import verdicts as verdict_words
from quantstore.wording.causes import LayerFacts
from quantstore.wording.verdicts import ModelFacts
from tests.support.facts import finding, many

NBSP = "\u00a0"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (units.db(12.24), f"12.2{NBSP}dB"),
        (units.db(LOST_DB), f"−∞{NBSP}dB"),
        (verdict_words.about_db(LOST_DB), f"−∞{NBSP}dB"),
        (units.db(-0.04), f"0.0{NBSP}dB"),
        (units.db(31.14, signed=True), f"+31.1{NBSP}dB"),
        (units.db(-3.0, signed=True), f"−3.0{NBSP}dB"),
        (units.db(29.96), f"29.9{NBSP}dB"),
        (units.db(29.94), f"29.9{NBSP}dB"),
        (units.db(30.0), f"30.0{NBSP}dB"),
        (units.db(30.04), f"30.0{NBSP}dB"),
        (units.db(12.26), f"12.3{NBSP}dB"),
        (units.db(9.999999999999998), f"9.9{NBSP}dB"),
        (units.db(-9.96), f"−10.0{NBSP}dB"),
        # A gain has no band.
        (units.db(29.96, signed=True), f"+30.0{NBSP}dB"),
        (units.db(None), "exact"),
        (units.db(math.nan), "exact"),
        (units.counted(1, "layer"), f"1{NBSP}layer"),
        (units.counted(8991, "channel"), f"8,991{NBSP}channels"),
        (units.weights(144), "144"),
        (units.weights(976_936), f"977{NBSP}k"),
        (units.weights(999_700), f"1{NBSP}M"),
        (units.weights(2_290_288), f"2.29{NBSP}M"),
        (units.weights(7_000_000_000), f"7{NBSP}G"),
        (units.file_size(999), f"999{NBSP}B"),
        (units.file_size(4_038_157), f"4.0{NBSP}MB"),
        (units.file_size(102_000_000), f"102{NBSP}MB"),
        (units.share(0.774), f"77{NBSP}%"),
        (units.share(0.774, digits=1), f"77.4{NBSP}%"),
        (units.share(0.0), f"0{NBSP}%"),
        (units.share(0.0001), f"<{NBSP}1{NBSP}%"),
        (units.weight(211.796), "211.8"),
        (units.weight(1.7256), "1.73"),
        (units.weight(-0.4), "−0.400"),
        (units.weight(0.0), "0"),
        (units.weight(None), "–"),
        (units.seconds(0.014), f"14{NBSP}ms"),
        (units.seconds(0.93), f"0.9{NBSP}s"),
        (units.shape((64, 1, 3, 3)), "64 × 1 × 3 × 3"),
        (nodes.operator("Conv", True), "depthwise Conv"),
        (text.listed(["a", "b", "c"]), "a, b and c"),
        (text.listed(["a"]), "a"),
        (text.listed([]), ""),
    ],
)
def test_figures_read_as_a_person_writes_them(said, expected):
    assert said == expected


def test_the_law_of_uniform_noise_gives_a_gaussian_what_measurements_give():
    # Eight standard deviations wide: a large Gaussian tensor gets about 41 dB.
    assert causes.expected_db(8) == pytest.approx(40.8, abs=0.1)
    # 20 log10(255 sqrt(12)), the constant itself.
    assert causes.expected_db(1) == pytest.approx(20 * math.log10(255 * math.sqrt(12)), abs=0.05)


def test_weights_alone_prove_that_a_model_is_broken_and_nothing_else():
    assert verdict_words.weights_verdict(0, 0) == verdict_words.VerdictCell(
        "untested", "no problem found in the weights"
    )
    assert verdict_words.weights_verdict(0, 3) == verdict_words.VerdictCell(
        "at risk", f"at risk: 3{NBSP}layers"
    )
    assert verdict_words.weights_verdict(24, 44) == verdict_words.VerdictCell(
        "broken", f"broken: 24{NBSP}layers", f"+{NBSP}44 at risk"
    )
    assert verdict_words.weights_verdict(1, 0).text == f"broken: 1{NBSP}layer"


CUT_OFF = "stopped after 60 s of processor time"
UNTESTED = finding("untested", reason=CUT_OFF)
UNTESTED_BUT_WEIGHTS = finding("untested", "weights", 22, reason=CUT_OFF)
ON_ITS_GRID = finding(
    "fine", "weights", is_already_quantized=True, is_measured=True, target="int8_weights"
)
MINE = {"evidence": "run", "sample_count": 12}


def in_a_cell(found: ModelFacts) -> tuple[str, str]:
    said = verdict_words.verdict(found)
    return said.band, f"{said.text} | {said.evidence}".replace(NBSP, " ")


@pytest.mark.parametrize(
    ("found", "band", "cell"),
    [
        (finding("broken", "both", 6.9), "broken", "broken: 7 dB | estimated with noise"),
        (finding("at risk", "both", 16.7), "at risk", "at risk: 17 dB | estimated with noise"),
        (finding("watch", "both", 21.9), "watch", "watch: 22 dB | estimated with noise"),
        (finding("fine", "both", 41.2), "fine", "fine: 41 dB | estimated with noise"),
        (
            finding("fine", "both", 41.2, broken=3),
            "fine",
            "fine: 41 dB | estimated with noise; 3 layers broken",
        ),
        (finding("fine", "both", 41.2, **MINE), "fine", "fine: 41 dB | on 12 of your inputs"),
        (
            finding("watch", "both", 25, provisional="tokens cannot be imitated"),
            "watch",
            "watch: 25 dB | estimated with noise, provisional",
        ),
        # The lower one of two values, and the only one.
        (
            finding("broken", "weights", 7.9, is_measured=True),
            "broken",
            "broken: 8 dB | estimated with noise, weights alone",
        ),
        (
            finding("broken", "weights", -1.9),
            "broken",
            "broken: −2 dB | estimated with noise, weights alone, activations not measured",
        ),
        (
            finding("fine", "weights", 34, is_measured=True, target="int8_weights"),
            "fine",
            "fine: 34 dB | estimated with noise",
        ),
        (finding("broken", broken=24), "broken", "broken: 24 layers | weights only, model not run"),
        (
            finding("at risk", at_risk=2),
            "at risk",
            "at risk: 2 layers | weights only, model not run",
        ),
        (finding("fine", "both"), "fine", "fine: no change | estimated with noise"),
        (
            finding("fine", "weights", 130.4, is_already_quantized=True, is_measured=True),
            "fine",
            "already stored in this format | earlier loss unknown",
        ),
        (ON_ITS_GRID, "fine", "already stored in this format | earlier loss unknown"),
        (
            finding("fine", "both", 34, is_already_quantized=True),
            "fine",
            "fine: 34 dB | estimated with noise",
        ),
        # Nothing less than the whole target may look like good news, not even stored integers.
        (UNTESTED, "untested", f"untested | {CUT_OFF}"),
        (UNTESTED_BUT_WEIGHTS, "untested", f"untested | {CUT_OFF}; weights alone: 22 dB"),
        (finding("untested"), "untested", "untested | not measured"),
        (
            finding("untested", is_already_quantized=True, are_layers_exact=True),
            "untested",
            "untested | not measured",
        ),
    ],
)
def test_a_verdict_says_what_it_rests_on(found, band, cell):
    assert in_a_cell(found) == (band, cell)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            finding("broken", "both", 6.9, worst_output="scores", decision_f1=0.05),
            "broken: output SQNR 7 dB at scores, estimated with noise; 5 % of decisions unchanged",
        ),
        (
            finding("watch", "both", 25, provisional="tokens cannot be imitated", **MINE),
            "watch: output SQNR 25 dB, on 12 of your inputs; provisional: tokens cannot be"
            " imitated",
        ),
        (
            finding("broken", broken=24, at_risk=44),
            "broken: 24 layers + 44 at risk, weights only, model not run",
        ),
        (ON_ITS_GRID, "already stored in this format, earlier loss unknown"),
        (
            UNTESTED_BUT_WEIGHTS,
            f"untested: {CUT_OFF}; weights alone: 22 dB",
        ),
        (
            finding("untested", model="my net", target="int8_dynamic"),
            "untested: not measured; measure it with: quantstore probe 'my net' --target"
            " int8_dynamic",
        ),
    ],
)
def test_a_verdict_on_one_line_says_what_to_do(found, said):
    assert verdict_words.verdict_sentence(found) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (6.9, "7 dB"),
        (9.4, "9 dB"),
        (9.7, "9.7 dB"),
        (9.99, "9.9 dB"),
        (10.0, "10 dB"),
        (29.6, "29.6 dB"),
        (30.4, "30 dB"),
        (39.7, "40 dB"),
        (-0.3, "0 dB"),
        (-1.9, "−2 dB"),
        (None, "exact"),
    ],
)
def test_a_figure_of_the_probe_never_reads_as_a_better_band(value, said):
    limit = min((one for one in causes.BAND_LIMITS_DB if one > (value or 0)), default=None)
    assert verdict_words.about_db(value, limit).replace(NBSP, " ") == said


@pytest.mark.parametrize(
    ("value", "limit", "said"),
    [
        (24.6, 25, "24.6 dB"),
        (24.6, 35, "25 dB"),
        (29.7, 35, "30 dB"),
        (24.7, 24.8, "24.7 dB"),
        (35.6, None, "36 dB"),
    ],
)
def test_the_limits_are_those_of_the_store(value, limit, said):
    assert verdict_words.about_db(value, limit).replace(NBSP, " ") == said
    found = finding("at risk", "both", value, next_limit_db=limit)
    assert f" {said} " in f" {verdict_words.verdict(found).text} ".replace(NBSP, " ")
    headline = headlines.model_headline(found, None, TARGETS["int8_channel"]).replace(NBSP, " ")
    assert f": output SQNR {said}," in headline


CHANNEL = TARGETS["int8_channel"]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            many(3, 2, 10, mode="both", db=5),
            "3 of 10 models are broken with {target} (estimated with noise); 2 are at risk",
        ),
        (
            many(1, 0, 1, mode="both", db=5),
            "The model is broken with {target} (estimated with noise)",
        ),
        (
            many(0, 1, 4, mode="both", db=15),
            "1 of 4 models is at risk with {target} (estimated with noise); 3 are fine",
        ),
        (
            many(0, 0, 4, mode="both", db=35),
            "All 4 models are fine with {target} (estimated with noise)",
        ),
        (
            many(0, 0, 2, mode="both", db=35, **MINE),
            "Both models are fine with {target} (on your inputs)",
        ),
        (
            [finding("fine", "both", 35), finding("fine", "both", 35, **MINE)],
            "Both models are fine with {target} (some on your inputs and some with noise)",
        ),
        (
            [finding("broken", broken=3)],
            "The model is broken with {target} (weights only, model not run)",
        ),
        (
            [finding("fine", "both", 35, provisional="…")],
            "The model is fine with {target} (estimated with noise; provisional)",
        ),
        # A loss that is visible is none that is fine.
        (
            [finding("watch", "both", 25), finding("fine", "both", 35)],
            "1 of 2 models is fine with {target} (estimated with noise); 1 is rated watch",
        ),
        (
            [finding("watch", "both", 25)],
            "The model is rated watch with {target} (estimated with noise)",
        ),
        ([ON_ITS_GRID], "The model is already stored in this format: earlier loss unknown"),
        (
            [ON_ITS_GRID, ON_ITS_GRID],
            "Both models are already stored in this format: earlier loss unknown",
        ),
        (
            [ON_ITS_GRID, finding("fine", "both", 35)],
            "1 of 2 models is fine with {target} (estimated with noise); 1 is already stored"
            " in this format",
        ),
        # Untested is never taken for good news.
        ([UNTESTED], "The model is untested with {target}"),
        ([UNTESTED, UNTESTED], "Both models are untested with {target}"),
        (
            [UNTESTED, ON_ITS_GRID],
            "1 of 2 models is untested with {target}; 1 is already stored in this format",
        ),
        (
            [UNTESTED, finding("fine", "both", 35)],
            "1 of 2 models is fine with {target} (estimated with noise); 1 is untested",
        ),
        (
            [UNTESTED, finding("broken", "both", 5)],
            "1 of 2 models is broken with {target} (estimated with noise); 1 is untested",
        ),
    ],
)
def test_the_headline_of_compare_is_the_answer(found, said):
    assert headlines.models_headline(found, [], CHANNEL) == said.format(target=CHANNEL.title)


@pytest.mark.parametrize(
    ("per_channel", "said"),
    [
        ([finding("broken", "both", 5), finding("fine", "both", 40)], "with {}, 1 is broken"),
        ([finding("fine", "both", 40)] * 2, "with {}, none is broken"),
        ([UNTESTED, finding("fine", "both", 40)], "with {}, 1 is untested"),
    ],
)
def test_the_headline_of_compare_says_what_a_scale_per_channel_changes(per_channel, said):
    tensor = TARGETS["int8_tensor"]
    assert tensor.per_channel == CHANNEL
    headline = headlines.models_headline(many(2, 0, 2, mode="both", db=5), per_channel, tensor)
    assert headline.endswith(f"; {said.format(CHANNEL.title)}")


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (finding("broken", "both", 6.9), "Broken with {}: output SQNR 7 dB, estimated with noise"),
        (
            finding("fine", "both", 41, **MINE),
            "Fine with {}: output SQNR 41 dB, on 12 of your inputs",
        ),
        (
            finding("broken", "weights", 6.9),
            "Broken with {}: output SQNR 7 dB, estimated with noise, weights alone,"
            " activations not measured",
        ),
        (
            finding("broken", broken=24, at_risk=44),
            "Broken with {}: 24 of 123 layers are broken by their weights, 44 at risk,"
            " weights only, model not run",
        ),
        (finding("fine", "both"), "Fine with {}: no change, estimated with noise"),
        (UNTESTED, f"Untested with {{}}: {CUT_OFF}"),
        (UNTESTED_BUT_WEIGHTS, f"Untested with {{}}: {CUT_OFF}; weights alone: 22 dB"),
        (ON_ITS_GRID, "Already stored in this format: earlier loss unknown"),
    ],
)
def test_the_headline_of_a_model_is_the_answer(found, said):
    headline = headlines.model_headline(found, None, CHANNEL).replace(NBSP, " ")
    assert headline == said.format(CHANNEL.title)


def test_the_headline_of_a_model_says_what_a_scale_per_channel_changes():
    tensor = TARGETS["int8_tensor"]
    per_channel = finding("at risk", "both", 19.2)
    headline = headlines.model_headline(finding("broken", "both", 6.9), per_channel, tensor)
    assert headline.replace(NBSP, " ").endswith(f"noise; {CHANNEL.title}: 19 dB")
    # What was not measured is no comparison.
    headline = headlines.model_headline(
        finding("broken", "both", 6.9), UNTESTED_BUT_WEIGHTS, tensor
    )
    assert headline.endswith("estimated with noise")


def test_the_layers_stay_the_reason():
    assert headlines.layers_in_words(finding(broken=24, at_risk=44)).replace(NBSP, " ") == (
        "24 of 123 layers are broken by their weights, 44 at risk"
    )
    assert headlines.layers_in_words(finding(at_risk=1)).replace(NBSP, " ") == (
        "1 of 123 layers is at risk by its weights"
    )
    none = "none of 123 layers is broken or at risk by its weights alone"
    assert headlines.layers_in_words(finding()).replace(NBSP, " ") == none
    assert headlines.layers_in_words(finding("watch", "both", 25)).replace(NBSP, " ") == none
    # Where the whole network is in trouble without such a layer, that needs a word.
    assert headlines.layers_in_words(finding("at risk", "weights", 12)).replace(NBSP, " ") == (
        f"{none}, but their losses add up at the outputs"
    )
    assert headlines.layers_in_words(finding("broken", "both", 5)).replace(NBSP, " ") == (
        f"{none}, but their losses and those of the activations add up at the outputs"
    )


def facts(**changes) -> LayerFacts:
    healthy = {
        "band": "broken",
        "channel_count": 64,
        "flattened_channels": 0,
        "outlier_channels": 0,
        "spread_bits": 0.5,
        "narrow_channels": 0,
        "symmetric_span_over_rms": 8.0,
        "weight_min": -1.0,
        "weight_max": 1.0,
    }
    return LayerFacts(**(healthy | changes))


def said(scheme=INT8_TENSOR_SYMMETRIC, **changes) -> str:
    return "; ".join(causes.causes(facts(**changes), scheme)).replace(NBSP, " ")


def test_each_cause_is_named_by_what_shows_it():
    assert said(flattened_channels=18) == "18 of 64 channels round to zero"
    assert said(flattened_channels=1) == "1 of 64 channels rounds to zero"
    assert said(outlier_channels=3, spread_bits=1.2) == "3 outlier channels set the scale"
    assert said(spread_bits=7.2) == "a typical channel keeps 0.8 of 8 bits"
    assert said(narrow_channels=3) == "3 of 64 channels use less than 3 % of the range"
    assert said(symmetric_span_over_rms=40.0) == "heavy tail: few large weights"
    assert said(weight_min=0.0) == "one-sided: half of the codes stay unused"


def test_at_most_three_causes_the_most_telling_first():
    everything = said(
        flattened_channels=9,
        outlier_channels=6,
        spread_bits=5.9,
        narrow_channels=30,
        symmetric_span_over_rms=60.0,
        weight_min=0.0,
    )
    assert everything == (
        "9 of 64 channels round to zero; 6 outlier channels set the scale;"
        " a typical channel keeps 2.1 of 8 bits"
    )


def test_dead_channels_are_mentioned_behind_the_causes():
    assert said(dead_channels=2) == "2 dead channels left out"
    assert said(flattened_channels=1, dead_channels=1) == (
        "1 of 64 channels rounds to zero; 1 dead channel left out"
    )
    assert (
        said(band="fine", dead_channels=1) == "no problem in the weights; 1 dead channel left out"
    )


def test_an_outlier_among_ranges_is_no_cause_unless_it_is_much_wider():
    assert said(outlier_channels=4, spread_bits=0.4) == ""


def test_no_cause_that_lies_in_a_shared_scale_holds_per_channel():
    assert (
        said(INT8_CHANNEL_SYMMETRIC, flattened_channels=9, outlier_channels=6, spread_bits=5.0)
        == ""
    )


def test_a_fine_layer_has_no_problem():
    assert said(band="fine", outlier_channels=6, spread_bits=5.0) == "no problem in the weights"


@pytest.mark.parametrize(
    ("bits_needed", "of_layer", "of_model"),
    [
        (
            {"tensor": 13, "channel": 7, "block": 6},
            "To be fine, the layer needs 13 bits per tensor, 7 bits per channel or 6 bits in"
            " blocks of"
            " 32.",
            "For every layer to be fine, you need 13 bits per tensor, 7 bits per channel or 6 bits"
            " in blocks of 32.",
        ),
        (
            {"tensor": None, "channel": 7, "block": 6},
            "To be fine, the layer needs 7 bits per channel or 6 bits in blocks of 32. Per"
            " tensor, even 16"
            " bits are not enough.",
            "For every layer to be fine, you need 7 bits per channel or 6 bits in blocks of 32. Per"
            " tensor, even 16 bits are not enough.",
        ),
        (
            {"tensor": None, "channel": None},
            "Not fine even with 16 bits per tensor or per channel.",
            "Not every layer is fine even with 16 bits per tensor or per channel.",
        ),
        (
            {"tensor": None, "channel": None, "block": None},
            "Not fine even with 16 bits per tensor, per channel or in blocks of 32.",
            "Not every layer is fine even with 16 bits per tensor, per channel or in blocks of 32.",
        ),
    ],
)
def test_bits_needed_are_said_of_a_layer_and_of_a_model(bits_needed, of_layer, of_model):
    what = " Fine means that 90 % of channels reach 30 dB with symmetric integers."
    assert remedy_words.fine_from(bits_needed).replace(NBSP, " ") == of_layer + what
    assert remedy_words.fine_from(bits_needed, of_model=True).replace(NBSP, " ") == of_model + what


@pytest.mark.parametrize(
    ("hope", "said"),
    [
        (("broken", 24, 5, 3), "5 of the 24 broken layers have {a}3 of them would no longer be"),
        (("broken", 24, 5, 5), "5 of the 24 broken layers have {a}none of them would still be"),
        (("broken", 24, 5, 0), "5 of the 24 broken layers have {a}all of them would still be"),
        (("broken", 24, 1, 1), "1 of the 24 broken layers has {a}it would no longer be"),
        (("broken", 24, 1, 0), "1 of the 24 broken layers has {a}it would still be"),
        (("at risk", 3, 3, 3), "all 3 layers at risk have {a}none of them would still be"),
        (("at risk", 1, 1, 0), "the layer at risk has {a}it would still be"),
        (("broken", 1, 1, 1), "the broken layer has {a}it would no longer be"),
    ],
)
def test_what_equalization_could_give_a_model_is_one_forecast(hope, said):
    said = said.format(a="a neighbour to rescale with, and ")
    assert remedy_words.equalization_hope(*hope) == (
        f"Cross-layer equalization: {said} {hope[0]}. {remedy_words.FORECAST}"
    )


@pytest.mark.parametrize(
    ("layers", "nobody_has"),
    [(1, "the broken layer has no"), (24, "none of the 24 broken layers has a")],
)
def test_without_a_pair_equalization_gives_nothing_and_it_is_said_why(layers, nobody_has):
    assert remedy_words.equalization_hope("broken", layers, 0, 0).startswith(
        f"Cross-layer equalization cannot help: {nobody_has} neighbour to rescale with."
        " SiLU, HardSwish, Sigmoid, ReLU6 and branches block it"
    )


@pytest.mark.slow
@given(st.text())
def test_a_name_in_html_is_never_markup_and_keeps_every_character(name):
    shown = text.breakable(name)
    assert "<" not in shown.replace("<wbr>", "")
    assert html.unescape(shown.replace("<wbr>", "")) == name


@given(st.text(max_size=200))
def test_a_name_in_markdown_has_no_sign_that_is_not_escaped(name):
    shown = text.markdown(name)
    position = 0
    while position < len(shown):
        if shown[position] == "\\":
            position += 2
            continue
        assert shown[position] not in "`*_[]<>#|$~"
        position += 1


def test_a_long_name_keeps_its_end_in_a_chart():
    assert text.short_name("/backbone/stage1/conv", 12) == "…stage1/conv"
    assert text.short_name("Conv_21", 12) == "Conv_21"


@pytest.mark.parametrize(
    ("attributes", "groups", "said"),
    [
        (
            '{"dilations":[1,1],"group":32,"kernel_shape":[3,3],"pads":[1,1,1,1],"strides":[2,2]}',
            32,
            ["stride 2", "padding 1", "dilation 1", "32 groups"],
        ),
        ('{"pads":[0,1,0,1],"strides":[1,2]}', 1, ["stride 1, 2", "padding 0, 1, 0, 1"]),
        ('{"alpha":0.5,"transA":0,"transB":1}', 1, ["alpha 0.5", "B transposed"]),
        ('{"direction":"forward","hidden_size":64}', 1, ["direction forward", "hidden size 64"]),
        ('{"axis":-1,"auto_pad":"NOTSET"}', 1, ["axis −1"]),
        (None, 4, ["4 groups"]),
        (None, 1, []),
    ],
)
def test_settings_of_a_node_in_words(attributes, groups, said):
    assert nodes.node_settings(attributes, groups) == said


@pytest.mark.parametrize(
    ("now", "remedies", "said"),
    [
        (0.0, {"per channel": 42.8, "clipped": 0.0}, f"best: per channel, +42.8{NBSP}dB"),
        # What costs less comes first, unless more is to be had.
        (10.0, {"per channel": 30.0, "equalized": 30.9}, f"best: per channel, +20.0{NBSP}dB"),
        (10.0, {"per channel": 30.0, "equalized": 31.1}, f"best: equalized, +21.1{NBSP}dB"),
        (10.0, {"per channel": math.inf, "clipped": 90.0}, "best: per channel, exact"),
        (10.0, {"per channel": 10.9, "clipped": None}, "none of these helps"),
        (10.0, {"clipped": None}, ""),
        (None, {"per channel": 30.0}, "nothing to gain"),
    ],
)
def test_the_best_remedy_is_named_with_its_gain(now, remedies, said):
    assert remedy_words.best_remedy(now, remedies) == said


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ((0, 0, 0), "all in order"),
        ((1, 0, 0), "1 file has changed since it was measured"),
        ((0, 1, 0), "1 file may have changed since it was measured"),
        ((0, 4, 0), "4 files may have changed since they were measured"),
        (
            (2, 1, 1),
            "2 files have changed since they were measured, 1 other may have and 1 model was"
            " measured by an older release",
        ),
    ],
)
def test_the_headline_of_the_shelf_tells_what_changed_from_what_may_have(counts, said):
    changed, perhaps, outdated = counts
    headline = headlines.shelf_headline(
        18, 653, 36_700_000, changed=changed, perhaps=perhaps, outdated=outdated
    )
    assert headline.replace(NBSP, " ") == f"18 models, 653 layers, 36.7 MB on disk; {said}"
