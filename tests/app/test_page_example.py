"""Worked example: the article's numbers digit for digit, and any others one may type."""

import math
import re

import numpy as np
import pytest

from quantstore.numerics.quantization import measure_error
from quantstore.schemes import Scheme
from quantstore.wording import worked_example
from quantstore.wording.worked_example import UnreadableValuesError, parse_values
from tests.support.visits import unopened


@pytest.fixture
def page(monkeypatch, tmp_path):
    """The page as the app frames it, over a folder without a store."""
    monkeypatch.setenv("QUANTSTORE_DB", str(tmp_path / "none.duckdb"))

    def open_page(**address):
        app = unopened("example", **address).run()
        assert not app.exception
        return app

    return open_page


def headline(app):
    return re.sub(r"\\(.)", r"\1", app.header[0].value)


def html_of(app):
    return "\n".join(element.proto.body for element in app.get("html"))


def table_of(app):
    rows = re.findall(
        r"<tr>(.*?)</tr>", html_of(app).partition("<tbody>")[2].partition("</tbody>")[0]
    )
    return [
        [re.sub("<.*?>", "", cell) for cell in re.findall(r"<td.*?>(.*?)</td>", row)]
        for row in rows
    ]


def work_out(text, bits=8, is_symmetric=False):
    return worked_example.work_out(parse_values(text), Scheme("any", bits, "tensor", is_symmetric))


def test_the_page_opens_with_the_numbers_of_the_article_digit_for_digit(page):
    app = page()
    assert headline(app) == (
        "4 of 6 values merge: 0.4 and −0.4 become 0.00; 0.5 and 1.2 become 0.85"
    )
    assert table_of(app) == [
        ["−51.35", "0", "−51.03", "0.32", ""],
        ["165.52", "255", "165.84", "0.32", ""],
        ["0.4", "60", "0.00", "−0.40", "same as −0.4"],
        ["−0.4", "60", "0.00", "0.40", "same as 0.4"],
        ["0.5", "61", "0.85", "0.35", "same as 1.2"],
        ["1.2", "61", "0.85", "−0.35", "same as 0.5"],
    ]
    shown = re.sub("<.*?>", "", html_of(app))
    assert "(165.52 − (−51.35)) / 255 = 0.8505" in shown
    assert "−round(−51.35 / 0.8505) = 60" in shown


def test_the_page_works_without_a_store_and_creates_none(page, tmp_path):
    assert not page().error
    assert not (tmp_path / "none.duckdb").exists()


def test_sqnr_of_all_values_hides_what_became_of_the_small_ones(page):
    text = " ".join(element.value for element in page().markdown)
    assert "**45.9\u00a0dB**" in text
    assert "come to **5.5\u00a0dB**" in text


def test_an_address_carries_values_bits_and_grid(page):
    app = page(values="1, 2, 3", bits="4", grid="symmetric")
    assert (app.text_input(key="values").value) == "1, 2, 3"
    assert [row[:3] for row in table_of(app)] == [
        ["1", "2", "0.86"],
        ["2", "5", "2.14"],
        ["3", "7", "3.00"],
    ]
    assert "max |x| / 7" in html_of(app)


def test_an_address_with_unknown_choices_falls_back(page):
    app = page(bits="5", grid="round")
    assert len(table_of(app)) == 6
    assert headline(app).startswith("4 of 6 values merge")


def test_leaving_the_outlier_out_is_one_click_away(page):
    app = page()
    app.button(key="try_leave_out").click().run()
    assert app.text_input(key="values").value == "-51.35, 0.4, -0.4, 0.5, 1.2"
    assert headline(app) == "2 of 5 values merge: 0.4 and 0.5 become 0.41"
    app.button(key="try_article").click().run()
    assert headline(app).startswith("4 of 6 values merge")


def test_small_values_on_a_grid_of_their_own_stay_apart(page):
    app = page()
    app.button(key="try_only_merged").click().run()
    assert headline(app) == "No two of 4 values merge: each keeps a code of its own"
    app.button(key="try_grid").click().run()
    assert app.query_params["grid"] == "symmetric"


def test_what_cannot_be_read_is_named_and_leads_back(page):
    app = page()
    app.text_input(key="values").set_value("1, <b>two</b>, 3").run()
    (error,) = app.error
    assert error.value.startswith(r"“\<b\>two\<\/b\>” is not a number")
    assert not app.header
    app.button(key="try_article").click().run()
    assert headline(app).startswith("4 of 6 values merge")


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("1 two 3 four", "“two” is not a number; write"),
        ("1 nan", "“nan” cannot be placed on a grid"),
        ("-inf", "“-inf” cannot be placed on a grid"),
        ("1e999", "“1e999” cannot be placed on a grid"),
        ("1e31", "“1e31” is too large"),
        (" ".join(map(str, range(65))), "these are 65 values"),
        ("x" * 500, f"“{'x' * 23}…” is not a number"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(typed, said):
    with pytest.raises(UnreadableValuesError) as caught:
        parse_values(typed)
    assert caught.value.sentence.startswith(said)


def test_no_value_is_a_state_of_its_own(page):
    app = page()
    app.text_input(key="values").set_value("  ,").run()
    assert headline(app) == "Which numbers?"
    assert not app.error


@pytest.mark.parametrize(
    "text", ["1, 2, -3", "1 2 -3", "1;2;-3", "1\n2\t-3", "[1, 2, −3]", "((1,2,-3,))"]
)
def test_commas_spaces_semicolons_lines_and_brackets_separate(text):
    assert parse_values(text) == (1, 2, -3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("7", "A single value has nothing to merge with"),
        ("7, 7", "A single value has nothing to merge with"),
        ("0, 7", "The two values stay apart: each keeps a code of its own"),
        ("0, 7, 3", "No two of 3 values merge: each keeps a code of its own"),
        ("100, 0.1, 0.1, -0.1", "2 of 3 values merge: 0.1 and −0.1 become 0.00"),
        (
            "255, 0, 10.1, 10.2, 20.1, 20.2, 30.1, 30.2, 40.1, 40.2, 50.1, 50.2",
            "10 of 12 values merge: 10.1 and 10.2 become 10.00; 20.1 and 20.2 become 20.00;"
            " 30.1 and 30.2 become 30.00; and 2 more groups",
        ),
        (
            "255, 0, 10.1, 10.2, 10.3, 9.9, 9.8, 20.1, 20.2",
            "7 of 9 values merge: 10.1, 10.2, 10.3 and 2 more become 10.00;"
            " 20.1 and 20.2 become 20.00",
        ),
    ],
)
def test_the_headline_counts_different_values_and_names_three_groups(text, said):
    assert worked_example.headline(work_out(text)) == said


def test_the_range_is_widened_to_include_zero():
    example = work_out("100, 101")
    assert (example.low, example.zero_point, example.codes) == (0, 0, (252, 255))


def test_values_that_are_all_zero_return_exactly():
    example = work_out("0, 0")
    assert example.returned == (0, 0)
    assert not example.has_range
    assert math.isnan(example.sqnr_db)


def test_figures_show_two_digits_below_the_step():
    assert worked_example.on_grid(-51.02824, 0.85047) == "−51.03"
    assert worked_example.on_grid(0.401569, 0.006275) == "0.4016"
    assert worked_example.on_grid(-0.001, 0.85) == "0.00"
    assert worked_example.on_grid(123456789.0, 2e6) == "1.235e+08"


def test_the_enlarged_stretch_holds_most_of_what_merged():
    assert list(worked_example.enlarged_codes(work_out("-51.35, 165.52, .4, -.4, .5, 1.2"))) == [
        59,
        60,
        61,
        62,
    ]
    # Two pairs far apart: the first of equals.
    assert list(worked_example.enlarged_codes(work_out("0, 255, 10.1, 10.2, 90.1, 90.2"))) == [
        9,
        10,
        11,
    ]
    assert worked_example.enlarged_codes(work_out("0, 255, 100")) is None


# One wide channel, and the others that share its step.


@pytest.mark.parametrize("bits", [4, 6, 8])
@pytest.mark.parametrize("is_symmetric", [True, False])
def test_the_kernels_go_through_the_arithmetic_that_measures_models(bits, is_symmetric):
    layer = worked_example.kernels(100, Scheme("any", bits, "tensor", is_symmetric))
    weights = np.array([kernel.values for kernel in layer.kernels], dtype=np.float32)
    for granularity, measured in (("tensor", layer.shared_db), ("channel", layer.own_db)):
        error = measure_error(weights, Scheme("any", bits, granularity, is_symmetric))
        assert measured == pytest.approx(error.sqnr_db, abs=1e-6)
        own = [
            kernel.shared_db if granularity == "tensor" else kernel.own_db
            for kernel in layer.kernels
        ]
        assert own == pytest.approx(error.channel_sqnr_db.tolist(), abs=1e-6)


def test_a_wide_channel_drowns_the_others_and_the_whole_tensor_hides_it(page):
    app = page()
    said = [re.sub(r"\\(.)", r"\1", header.value).replace("\u00a0", " ") for header in app.header]
    assert said[1] == (
        "2 of 3 channels drown, although the whole tensor keeps 46.1 dB; per channel none does"
    )
    app.segmented_control(key="wide").set_value("1").run()
    assert app.header[1].value.startswith("No channel drowns")
    assert app.query_params["wide"] == "1"
