"""Worked example: the article's numbers digit for digit, and any others one may type."""

import re

import pytest

from quantstore.schemes import Scheme
from quantstore.wording import worked_example
from quantstore.wording.causes import BAND_LIMITS_DB
from quantstore.wording.text import markdown
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


# What the page begins with.
PLAIN = Scheme("any", 8, "tensor", is_symmetric=False)


def answer(text):
    """What the page is to say of these values."""
    return worked_example.headline(worked_example.work_out(parse_values(text), PLAIN))


def channels_answer(widening):
    """What the page is to say of channels of which one is so many times as wide."""
    layer = worked_example.kernels(widening, PLAIN)
    return worked_example.kernels_headline(layer, BAND_LIMITS_DB[0])


def test_the_page_opens_with_the_numbers_of_the_article_digit_for_digit(page):
    app = page()
    assert headline(app) == answer(worked_example.ARTICLE_VALUES)
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
    assert "an SQNR of **5.5\u00a0dB**" in text


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
    assert headline(app) == answer(worked_example.ARTICLE_VALUES)


def test_leaving_the_outlier_out_is_one_click_away(page):
    app = page()
    app.button(key="try_leave_out").click().run()
    assert app.text_input(key="values").value == "-51.35, 0.4, -0.4, 0.5, 1.2"
    assert headline(app) == answer("-51.35, 0.4, -0.4, 0.5, 1.2")
    app.button(key="try_article").click().run()
    assert headline(app) == answer(worked_example.ARTICLE_VALUES)


def test_small_values_on_a_grid_of_their_own_stay_apart(page):
    app = page()
    app.button(key="try_only_merged").click().run()
    assert headline(app) == answer("0.4, -0.4, 0.5, 1.2")
    app.button(key="try_grid").click().run()
    assert app.query_params["grid"] == "symmetric"


def test_what_cannot_be_read_is_named_and_leads_back(page):
    app = page()
    app.text_input(key="values").set_value("1, <b>two</b>, 3").run()
    (error,) = app.error
    with pytest.raises(UnreadableValuesError) as unreadable:
        parse_values("<b>two</b>")
    assert error.value == markdown(unreadable.value.sentence)
    assert r"\<b\>two\<\/b\>" in error.value
    assert not app.header
    app.button(key="try_article").click().run()
    assert headline(app) == answer(worked_example.ARTICLE_VALUES)


def test_no_value_is_a_state_of_its_own(page):
    app = page()
    app.text_input(key="values").set_value("  ,").run()
    assert headline(app) == "Which numbers?"
    assert not app.error


# One wide channel, and the others that share its step.


def test_a_wide_channel_drowns_the_others_and_the_whole_tensor_hides_it(page):
    app = page()
    assert app.header[1].value == markdown(channels_answer(100))
    app.segmented_control(key="wide").set_value("1").run()
    assert app.header[1].value == markdown(channels_answer(1))
    assert app.query_params["wide"] == "1"
