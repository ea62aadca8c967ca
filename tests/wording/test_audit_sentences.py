"""What is said of an audit, in full."""

import dataclasses
import math

import pytest

from quantstore.graph.findings.base import MOST_GAP_DB
from quantstore.schemes import TARGETS
from quantstore.wording import audit_tables as tables
from quantstore.wording import audits, headlines, verdicts
from quantstore.wording.columns import NOTHING, Interval
from quantstore.wording.units import NO_BREAK_SPACE
from quantstore.wording.verdicts import ModelFacts
from tests.support.runs import an_audit, an_audited_layer, an_audited_tensor

NAMES = {0: "conv0", 1: "conv1"}
BROKEN = an_audited_layer(0, 6.5, plain_p10_db=6.5, per_channel_p10_db=43.5)


def plain(text):
    return text.replace(NO_BREAK_SPACE, " ")


def said(record):
    return [plain(sentence) for sentence in audits.sentences(record, NAMES)]


def headline(band=None, **changes):
    return plain(audits.headline(an_audit(**changes), "net-int8", "net", band))


def test_the_gap_of_integer_kernels_is_the_one_of_the_finding():
    assert audits.TELLING_GAP_DB == MOST_GAP_DB


def test_the_headline_says_what_is_kept_of_which_file_on_which_inputs():
    assert headline() == "net-int8 has an output SQNR of 18.5 dB against net on 6 inputs."
    assert (
        headline("at risk")
        == "At risk: net-int8 has an output SQNR of 18.5 dB against net on 6 inputs."
    )
    assert headline(input_source="noise, image-like").endswith("on 6 noise inputs.")
    assert headline("fine", grid_db=math.inf) == (
        "Fine: net-int8 gives exactly the answers of net on 6 inputs."
    )


def test_sums_that_saturate_stand_in_the_headline():
    assert headline(saturates=True, integer_db=11.5) == (
        "net-int8 has an output SQNR of 18.5 dB against net on 6 inputs, but 11.5 dB on"
        " this computer, whose integer sums saturate."
    )


def test_a_failure_is_the_headline_and_has_no_sentences():
    assert headline(failure="stopped\x1b") == "The audit of net-int8 failed: stopped\\x1b"
    assert said(an_audit(failure="stopped")) == []


def test_who_loses_it_comes_first_then_the_causes_then_the_pairing():
    assert said(an_audit()) == [
        "The weights cause the loss: output SQNR is 19.5 dB with int8 weights only and 26.5 dB with"
        " int8 activations only.",
        "1 tensor has values beyond the grid: calibrate the int8 file on inputs like these.",
        "The weights of conv1 cost 7.5 dB at the outputs: their scale is 1.3× as large as they"
        " need.",
        "Tensor h costs 1.5 dB at the outputs: 12 % of its values lie beyond its grid.",
        "10 of 10 layers and 2 of 2 rounded tensors are paired with the float file. Without"
        " any rounding the two files agree to 70.5 dB, which proves the pairing.",
    ]


@pytest.mark.parametrize(
    ("weights_db", "activations_db", "beginning"),
    [
        (19.5, 26.5, "The weights cause the loss: "),
        (26.5, 19.5, "The activations cause the loss: "),
        (21.5, 22.5, "Weights and activations share the loss: "),
    ],
)
def test_the_blame_goes_to_who_keeps_less_alone(weights_db, activations_db, beginning):
    record = an_audit(weights_db=weights_db, activations_db=activations_db)
    assert said(record)[0].startswith(beginning)


def test_a_file_without_rounded_activations_says_so():
    assert said(an_audit(rounded_tensors=0, tensors=()))[0] == audits.NO_ACTIVATIONS


def test_layers_that_a_scale_per_channel_repairs_are_counted():
    record = an_audit(layers=(BROKEN, dataclasses.replace(BROKEN, int8_depth=1)))
    assert (
        "A scale per channel would repair 2 broken layers: quantize the weights per channel."
        in said(record)
    )


def test_noise_gives_no_advice_about_calibration_and_says_why():
    sentences = said(an_audit(input_source="noise, image-like"))
    assert not any("calibrate" in sentence for sentence in sentences)
    assert sentences[-1] == audits.ON_NOISE


def test_a_loss_without_a_single_cause_is_told_as_such():
    layers = (an_audited_layer(0, gain=0.5),)
    assert audits.NO_SINGLE_CAUSE in said(an_audit(layers=layers, tensors=()))
    # Where nothing was tried, nobody knows.
    assert audits.NO_SINGLE_CAUSE not in said(an_audit(layers=(), tensors=()))


def test_files_that_differ_without_any_rounding_are_told():
    assert said(an_audit(neither_db=20.5))[-1] == (
        "10 of 10 layers and 2 of 2 rounded tensors are paired with the float file. Without"
        " any rounding the two files still differ (20.5 dB), so values of single layers may"
        " be wrong."
    )


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (an_audited_layer(1, scale_ratio=1.3, gain=2.0), ": their scale is 1.3×"),
        (an_audited_layer(1, rounding="clipped", gain=2.0), ": the grid ends before"),
        (dataclasses.replace(BROKEN, released_gain_db=2.0), ": their channels share one scale."),
        (an_audited_layer(1, gain=2.0), " at the outputs."),
    ],
)
def test_the_cause_of_a_layer_is_told_where_there_is_one(layer, reason):
    assert reason in plain(audits.layer_cause(layer, "conv"))


def test_what_alone_costs_the_whole_loss_is_told_so():
    layer = an_audited_layer(1, gain=math.inf)
    tensor = an_audited_tensor("h", released_gain_db=math.inf)
    assert audits.layer_cause(layer, "conv") == (
        "The weights of conv cost all that is lost at the outputs."
    )
    assert audits.tensor_cause(tensor).startswith("Tensor h costs all that is lost at the outputs:")
    (cell, *_) = (column.cell for column in tables.LAYER_COLUMNS if column.title == "gain")
    assert cell({"released_gain_db": math.inf}).text == tables.WHOLE_LOSS
    assert cell({"released_gain_db": None}).text == NOTHING


def test_an_output_that_was_not_run_in_a_way_is_not_exact_in_it():
    columns = {
        column.title: column.cell({"integer_db": math.inf, "exact_db": None})
        for column in tables.output_columns(an_audit(integer_db=math.inf, exact_db=math.nan))
        if column.title in ("integer kernels", "exact sums")
    }
    assert {title: cell.text for title, cell in columns.items()} == {
        "integer kernels": "exact",
        "exact sums": NOTHING,
    }


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"saturated_share": 0.125}, "12 % of its values lie beyond its grid."),
        ({"used_share": 0.25, "sqnr_db": 30.5}, "wider than its values need (25 % of it is used)."),
        ({}, "its values need more bits."),
    ],
)
def test_the_cause_of_a_tensor_is_told(changes, reason):
    tensor = an_audited_tensor("h", released_gain_db=2.0, **changes)
    assert plain(audits.tensor_cause(tensor)).endswith(reason)


def test_kernels_that_were_not_run_have_no_value():
    record = an_audit(integer_db=math.nan, exact_db=math.nan)
    assert audits.ways(record) == ["grid_db", "weights_db", "activations_db", "neither_db"]
    assert len(audits.figures(an_audit())) == len(audits.WAY_TITLES)


def test_names_out_of_a_file_are_made_visible():
    assert "\x1b" not in audits.headline(an_audit(), "a\x1b", "b\x1b")
    assert "\x1b" not in audits.layer_cause(an_audited_layer(0, gain=2.0), "a\x1b")


def test_a_grid_and_the_values_on_it_share_one_axis():
    assert Interval((0.0, 50.0), (-50.0, 150.0), "").bars == ((0.25, 0.25), (0.0, 1.0))
    assert Interval(None, (1.0, 1.0), "").bars == (None, (0.0, 0.0))


# What verdicts say of an int8 model that was audited.

AUDITED = ModelFacts(
    verdict="fine",
    evidence="run",
    is_already_quantized=True,
    output_sqnr_db=90.0,
    audited_against="net",
    audited_db=6.5,
    audited_band="broken",
)


def test_a_cell_of_an_audited_file_has_its_loss_and_its_band():
    cell = verdicts.verdict(AUDITED)
    assert (cell.band, cell.text) == ("broken", verdicts.STORED_SO)
    assert plain(cell.evidence) == "audited: 6.5 dB against net"
    # It is not told twice.
    assert cell.audited == ""
    unknown = verdicts.verdict(dataclasses.replace(AUDITED, audited_against=None))
    assert unknown.evidence == verdicts.LOSS_UNKNOWN


def test_under_another_target_the_loss_of_an_audited_file_stands_below_the_verdict():
    cell = verdicts.verdict(dataclasses.replace(AUDITED, output_sqnr_db=8.0, verdict="broken"))
    assert plain(cell.audited) == "Audited: 6.5 dB against net"
    exact = dataclasses.replace(AUDITED, output_sqnr_db=8.0, audited_db=None)
    assert verdicts.verdict(exact).audited == "Audited: same answers as net"


def test_the_headline_of_an_audited_file_on_its_own_grid_names_the_loss():
    headline = headlines.model_headline(AUDITED, None, TARGETS[AUDITED.target])
    assert plain(headline) == "Already stored in this format; audited: 6.5 dB against net"
