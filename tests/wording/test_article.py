"""The article with stored models: which stand for its own, and what is said to be missing."""

import math

import pytest

from quantstore.wording import article
from tests.support.facts import finding


def layer(name, spread, *, family="conv", depthwise=False, layer_id=0):
    return {
        "layer_id": layer_id,
        "layer": name,
        "channel_spread_bits": spread,
        "op_family": family,
        "is_depthwise": depthwise,
    }


@pytest.mark.parametrize(
    ("worst_first", "pair"),
    [
        (["a", "my-RTMDet-tiny", "yolov10n-quant"], ("my-RTMDet-tiny", "yolov10n-quant")),
        (["digits-rescaled", "digits-plain", "digits-separable"], article._EXAMPLES),
        (["worst", "middle", "best"], ("worst", "best")),
        (["yolov10n", "best"], ("best", "yolov10n")),
        (["rtmdet-s", "middle", "best"], ("rtmdet-s", "best")),
        (["only"], ("only", "only")),
    ],
)
def test_the_pair_is_that_of_the_article_else_the_examples_else_worst_and_best(worst_first, pair):
    assert article.model_pair(worst_first) == pair


def test_what_the_store_lacks_is_named():
    said = article.absent_models(["rtmdet-nano", "other"])
    assert said == (
        "The store has rtmdet-nano (for RTMDet-s). Missing: YOLOv10-N and Faster R-CNN. Add the"
        " .onnx file in the sidebar."
    )
    everything = article.absent_models(["rtmdet-s", "yolov10n", "fasterrcnn"])
    assert "Missing" not in everything


def test_the_layer_of_the_article_is_shown_where_there_is_one():
    rows = [layer("wide", 9.0), layer(article.LAYER, 1.0, layer_id=7)]
    assert article.layer_to_show(rows).layer_id == 7


@pytest.mark.parametrize(
    ("rows", "shown", "reason"),
    [
        ([layer("a", 9.0), layer("b", 2.0, depthwise=True)], "b", "depthwise convolution with"),
        ([layer("a", 1.0), layer("b", 2.0)], "b", "no depthwise convolution"),
        ([layer("a", 1.0, family="linear")], "a", "no convolution"),
        ([layer("a", math.nan), layer("b", 0.5)], "b", "no depthwise"),
    ],
)
def test_else_the_most_alike_with_the_widest_spread_and_why(rows, shown, reason):
    choice = article.layer_to_show(rows)
    assert choice.row["layer"] == shown
    assert reason in choice.reason


def test_a_model_without_channels_shows_none():
    assert article.layer_to_show([layer("a", math.nan), layer("b", None)]) is None


def test_the_headline_says_the_verdicts_and_the_story_the_weights():
    broken = finding("broken", "both", 3.0, 24, model="A", layer_count=123)
    watch = finding("watch", "both", 25.0, model="B", layer_count=83)
    title = article.TARGET.title
    assert article.headline(broken, watch) == f"A is broken with {title}, B is rated watch"
    assert article.headline(broken, broken) == f"A and A are broken with {title}"
    said = article.weights_story([broken, watch], {"A": 211.8, "B": 19.94})
    assert said.replace("\u00a0", " ") == (
        "By the weights alone: 24 of 123 layers broken and a largest weight range of 211.8 in A;"
        " 0 of 83 layers broken and a largest weight range of 19.9 in B."
    )


def test_channels_that_stand_out_are_named_widest_first():
    said = article.channels_story(32, [11, 19], 20, 180.0, 0.9).replace("\u00a0", " ")
    assert said == (
        "Channels 11 and 19 stand out: the widest spans 180.0, a typical one 0.900. 20 of 32"
        " channels (62 %) are below 10 dB."
    )
    assert article.channels_story(8, [], 0, 1.0, 0.9).startswith("No channel stands out")
    assert "3, 2 and 1 and 2 more" in article.channels_story(99, [3, 2, 1, 0, 4], 0, 1.0, 0.9)
