"""Worked example: how do values merge on an int8 grid, and why does one outlier matter so much?"""

import html
import math

import streamlit as st

from quantstore.app.widgets import address, colours, drawing, navigation, notes, pickers
from quantstore.charts import example as charts
from quantstore.charts.palette import BANDS, DARK, LIGHT, both
from quantstore.schemes import Scheme
from quantstore.wording import worked_example
from quantstore.wording.causes import BAND_LIMITS_DB
from quantstore.wording.text import markdown
from quantstore.wording.units import db, share, with_minus
from quantstore.wording.worked_example import Example, Kernel, number, on_grid

BITS = ["4", "6", "8"]
DEFAULT_BITS = "8"
GRIDS = ["asymmetric", "symmetric"]
MUTED = both(LIGHT.muted, DARK.muted)
HAIRLINE = both(LIGHT.grid, DARK.grid)
# From here on the figure for all values hides what became of the merged ones.
MISLEADING_DB = 10


def main() -> None:
    """Draw the page. It needs no store."""
    st.title("Worked example")
    st.caption("How a few numbers are quantized to int8 and back, step by step.")
    values_box, scheme = _controls()
    try:
        values = worked_example.parse_values(values_box)
    except worked_example.UnreadableValuesError as error:
        st.error(markdown(error.sentence))
        _offer("back to the article’s six values", worked_example.ARTICLE_VALUES, "article")
        return
    if not values:
        st.header("Which numbers?", anchor=False)
        st.write("Type one or more above, separated by commas, or begin with those of the article.")
        _offer("the article’s six values", worked_example.ARTICLE_VALUES, "article")
        return
    example = worked_example.work_out(values, scheme)
    _suggestions(example)
    st.header(markdown(worked_example.headline(example)), anchor=False)
    _formulas(example)
    _lines(example)
    with st.grid(2, min_column_width=420, gap=("small", "large")):
        with st.container():
            _table(example)
        with st.container():
            _loss(example)
    _channels(scheme)
    _meaning()


def _controls() -> tuple[str, Scheme]:
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        address.link("values", default=worked_example.ARTICLE_VALUES)
        text = st.text_input(
            "Values",
            key="values",
            max_chars=2000,
            width=420,
            help=f"Up to {worked_example.MOST_VALUES} numbers, separated by commas or spaces.",
        )
        bits = int(pickers.choice("Bits", BITS, key="bits", first=DEFAULT_BITS))
        grid = pickers.choice("Grid", GRIDS, key="grid")
    return text, Scheme(f"int{bits}_tensor_{grid}", bits, "tensor", grid == "symmetric")


def _suggestions(example: Example) -> None:
    """What to change next, each one click away."""
    extreme = worked_example.widest_apart(example)
    merged = [value for group in example.merged for value in group.values]
    has_more = 2 <= len(merged) < example.distinct_count
    is_changed = example.values != worked_example.parse_values(worked_example.ARTICLE_VALUES)
    with st.container(horizontal=True, vertical_alignment="center", gap="xsmall"):
        st.caption("Try it:", width="content")
        if extreme is not None:
            remaining = [value for value in example.values if value != extreme]
            _offer(f"leave out {number(extreme)}", _typed(remaining), "leave_out")
        if has_more:
            _offer(f"only the {len(merged)} that merge", _typed(merged), "only_merged")
        other_grid = GRIDS[0] if example.scheme.is_symmetric else GRIDS[1]
        st.button(
            f"{'an' if example.scheme.is_symmetric else 'a'} {other_grid} grid",
            key="try_grid",
            help="Asymmetric: the codes cover exactly the range of the values; the zero point is"
            " the code for 0. Symmetric: the codes cover the same range on both sides of 0, which"
            " has code 0.",
            on_click=address.choose,
            args=("grid", other_grid),
        )
        if is_changed:
            _offer("the article’s six values", worked_example.ARTICLE_VALUES, "article")


def _offer(label: str, values: str, key: str) -> None:
    st.button(
        markdown(label),
        key=f"try_{key}",
        on_click=address.choose,
        args=("values", values),
    )


def _typed(values: list[float]) -> str:
    return ", ".join(f"{value:.7g}" for value in values)


def _formulas(example: Example) -> None:
    """Scale, zero point, code and return, with the numbers put in."""
    scheme = example.scheme
    scale = _scale(example)
    position = _telling_position(example)
    value, code = example.values[position], example.codes[position]
    inside = value / example.scale
    if not example.has_range:
        scale_formula, scale_words = "", "the range is 0, so any step works"
    elif scheme.is_symmetric:
        largest = number(max(-example.low, example.high))
        scale_formula = f"max |x| / {scheme.qmax} = {largest} / {scheme.qmax} = "
        scale_words = f"the largest absolute value divided into {scheme.qmax} steps"
    else:
        scale_formula = f"({number(example.high)} − {_bracketed(example.low)}) / {scheme.qmax} = "
        scale_words = f"the range divided into {scheme.qmax} steps" + _widened(example)
    if scheme.is_symmetric or not example.has_range:
        zero_formula, sum_formula = "", ""
    else:
        zero_formula = f"−round({number(example.low)} / {scale}) = "
        sum_formula = f" + {example.zero_point}"
    difference = f"({code} − {example.zero_point})" if sum_formula else str(code)
    ratio = with_minus(f"{inside + 0.0:.2f}")
    clip = f"clip(round(x / s) + z, {scheme.qmin}, {scheme.qmax})".replace("-", "−")
    lines = (
        (
            "s",
            scale_formula,
            scale,
            "Scale",
            f"the distance between grid points: {scale_words}.",
        ),
        ("z", zero_formula, str(example.zero_point), "Zero point", "the code that stands for 0."),
        (
            "q",
            f"{clip}<br>round({number(value)} / {scale}){sum_formula}"
            f" = round({ratio}){sum_formula} = ",
            with_minus(str(code)),
            "Code",
            f"the number of the nearest grid point, stored in {scheme.bits} bits. Here for"
            f" x = {number(value)}.",
        ),
        (
            "x′",
            f"s (q − z)<br>{scale} × {with_minus(difference)} = ",
            on_grid(example.returned[position], example.scale),
            "Dequantized value",
            "the grid point. The difference from x is the quantization error.",
        ),
    )
    rows = []
    for symbol, formula, result, name, meaning in lines:
        rows.append(
            '<div style="display:flex;flex-wrap:wrap;gap:0 32px;padding:5px 0">'
            "<div style=\"flex:0 1 30rem;font-family:'Source Code Pro',monospace;font-size:13px;"
            'display:flex;font-variant-ligatures:none">'
            f'<span style="flex:none;width:3em">{symbol} =</span>'
            f"<span>{formula}<b style='font-weight:700'>{result}</b></span></div>"
            f'<div style="flex:1 1 18rem;font-size:13px;color:{MUTED}">'
            f"<b style='font-weight:600;color:{both(LIGHT.text, DARK.text)}'>{name}:</b> {meaning}"
            "</div></div>"
        )
    st.html(f'<div style="line-height:1.5">{"".join(rows)}</div>')


def _lines(example: Example) -> None:
    """The grid over the whole range, and a closer look where it matters."""
    scheme = example.scheme
    points = worked_example.points(example)
    codes = range(scheme.qmin, scheme.qmax + 1)
    grid = worked_example.grid_points(example, codes)
    enlarged = worked_example.enlarged_codes(example)
    st.subheader("The grid over the whole range", anchor=False)
    ends = [on_grid(example.grid_point(code), example.scale) for code in (codes[0], codes[-1])]
    shaded = " The shaded part is enlarged below." if enlarged is not None else ""
    st.caption(
        f"Each tick is a grid point: {len(codes)} from {ends[0]} to {ends[1]}. Circles are the"
        f" values x, diamonds the dequantized values x′.{shaded}"
    )
    drawing.chart(
        charts.whole_line(points, grid, enlarged, colours.palette()),
        key="whole_line",
        alt=f"{example.distinct_count} values on a grid of {len(codes)} points."
        f" {worked_example.headline(example)}.",
    )
    if enlarged is None:
        return
    inside = points[points["code"].isin(enlarged)]
    step = on_grid(example.scale, example.scale)
    if example.merged:
        st.subheader("Enlarged, where values merge", anchor=False)
        shown = [group for group in example.merged if group.code in enlarged]
        unseen_count = example.merged_count - sum(len(group.values) for group in shown)
        elsewhere = f" {unseen_count} more merge elsewhere." if unseen_count else ""
        st.caption(
            f"Every value moves to the nearest grid point, by at most half a step"
            f" ({on_grid(example.scale / 2, example.scale)}). All values in one tinted part end up"
            f" on the same point.{elsewhere}"
        )
        finding = worked_example.headline(example)
    else:
        st.subheader("Enlarged, around the two closest values", anchor=False)
        st.caption(
            "These values keep different codes: they are more than a step apart, or on either side"
            " of the midpoint between two grid points."
        )
        finding = "The two closest values go to different grid points"
    drawing.chart(
        charts.enlarged_line(
            inside, worked_example.grid_points(example, enlarged), step, colours.palette()
        ),
        key="enlarged_line",
        alt=f"Grid points one step of {step} apart. {finding}.",
    )


def _table(example: Example) -> None:
    st.subheader("The values", anchor=False)
    titles = [("x", "right"), ("code q", "right"), ("x′", "right"), ("error x′ − x", "right")]
    if example.merged:
        titles.append(("merged with", "left"))
    head = "".join(
        f'<th scope="col" style="{_cell(align)};font-weight:400;font-size:12px;color:{MUTED}">'
        f"{title}</th>"
        for title, align in titles
    )
    rows = []
    for position, value in enumerate(example.values):
        returned = example.returned[position]
        cells = "".join(
            f'<td style="{_cell("right")}">{html.escape(text)}</td>'
            for text in (
                number(value),
                with_minus(str(example.codes[position])),
                on_grid(returned, example.scale),
                on_grid(returned - value, example.scale),
            )
        )
        if example.merged:
            cells += f'<td style="{_cell("left")}">{_chip(example, position)}</td>'
        rows.append(f"<tr>{cells}</tr>")
    st.html(
        '<table style="width:100%;border-collapse:collapse;'
        'font-variant-numeric:tabular-nums;font-size:15px">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _cell(align: str) -> str:
    padding = "24px" if align == "left" else "0"
    return (
        f"text-align:{align};padding:7px 8px 7px {padding};border:0;"
        f"border-bottom:1px solid {HAIRLINE}"
    )


def _chip(example: Example, position: int) -> str:
    group = example.group_of(position)
    if group is None:
        return ""
    colour = min(group, len(LIGHT.merged) - 1)
    (light_ink, light_tint), (dark_ink, dark_tint) = LIGHT.merged[colour], DARK.merged[colour]
    return (
        '<span style="display:inline-block;padding:1px 8px;border-radius:5px;font-size:13px;'
        f"font-weight:600;color:{both(light_ink, dark_ink)};"
        f'background:{both(light_tint, dark_tint)}">'
        f"{html.escape(worked_example.same_as(example, position))}</span>"
    )


def _loss(example: Example) -> None:
    """SQNR, and why one figure for all values lies."""
    if math.isnan(example.sqnr_db):
        return
    st.subheader("What it costs", anchor=False)
    whole = "infinite: no value moved" if math.isinf(example.sqnr_db) else db(example.sqnr_db)
    text = (
        "**SQNR**, the signal-to-quantization-noise ratio, compares the energy of the values with"
        " the energy of their errors: 10 log₁₀(Σ x² / Σ (x′ − x)²). Six decibels are one bit."
        f" For these values it is **{whole}**."
    )
    apart = example.merged_sqnr_db
    if not math.isnan(apart) and example.sqnr_db - apart > MISLEADING_DB:
        extreme = max(example.values, key=abs)
        energy = sum(value * value for value in example.values)
        carried = share(example.values.count(extreme) * extreme * extreme / energy)
        text += (
            f" That looks good, but {number(extreme)} alone carries {carried} of the energy. The"
            f" {example.merged_count} values that merge have an SQNR of **{db(apart)}**, which the"
            " value for the whole hides. That is why quantstore judges a layer channel by channel."
        )
    st.markdown(text)


def _channels(scheme: Scheme) -> None:
    """The same with channels: one that is wide, and the others that share its step."""
    st.space("small")
    title = st.empty()
    st.caption(
        "A layer with three output channels of four weights each. *Per tensor*, the largest weight"
        " sets one step for all three channels. *Per channel*, each channel has its own step. Make"
        " channel 2 wider and see what happens to the others."
    )
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.caption("Width of channel 2, times the original:", width="content")
        widening = pickers.choice(
            "How wide channel 2 is",
            list(worked_example.WIDENINGS),
            key="wide",
            first="100",
            label_is_hidden=True,
        )
    layer = worked_example.kernels(float(widening), scheme)
    with title:
        st.header(markdown(worked_example.kernels_headline(layer, BAND_LIMITS_DB[0])), anchor=False)
    head = "".join(
        f'<th scope="col" style="{_cell(align)};font-weight:400;font-size:12px;color:{MUTED}">'
        f"{heading}</th>"
        for heading, align in (
            ("channel", "left"),
            ("weights x", "right"),
            (f"x′ per tensor, step {number(_rounded(layer.shared_step))}", "right"),
            ("SQNR", "right"),
            ("x′ per channel", "right"),
            ("SQNR", "right"),
        )
    )
    rows = [
        _channel_row(str(channel), kernel, layer.shared_step, layer.own_steps[channel])
        for channel, kernel in enumerate(layer.kernels)
    ]
    whole = (
        f'<td style="{_cell("left")};font-weight:600" colspan="3">whole tensor</td>'
        f'<td style="{_cell("right")}">{_band_chip(layer.shared_db)}</td>'
        f'<td style="{_cell("right")}"></td>'
        f'<td style="{_cell("right")}">{_band_chip(layer.own_db)}</td>'
    )
    st.html(
        '<div style="overflow-x:auto"><table style="width:100%;border-collapse:collapse;'
        'font-variant-numeric:tabular-nums;font-size:14px">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}<tr>{whole}</tr></tbody></table></div>"
    )
    notes.note(
        "The SQNR of the whole tensor hides the loss: the wide channel carries nearly all of the"
        " energy and loses little. quantstore therefore judges a layer by the SQNR that 90 % of its"
        " channels reach."
    )


def _channel_row(name: str, kernel: Kernel, step: float, own_step: float) -> str:
    cells = [
        f'<td style="{_cell("left")}">{name}</td>',
        f'<td style="{_cell("right")}">{_values(kernel.values, None)}</td>',
        f'<td style="{_cell("right")}">{_values(kernel.shared_returned, step)}</td>',
        f'<td style="{_cell("right")}">{_band_chip(kernel.shared_db)}</td>',
        f'<td style="{_cell("right")}">{_values(kernel.own_returned, own_step)}</td>',
        f'<td style="{_cell("right")}">{_band_chip(kernel.own_db)}</td>',
    ]
    return f"<tr>{''.join(cells)}</tr>"


def _values(values: tuple[float, ...], step: float | None) -> str:
    """The numbers of a kernel in columns of their own; those that became 0 in muted ink."""
    spans = []
    for value in values:
        text = number(_rounded(value)) if step is None else on_grid(value, step)
        colour = f"color:{MUTED};" if step is not None and value == 0 else ""
        spans.append(
            f'<span style="{colour}display:inline-block;min-width:3.4em;margin-left:6px">'
            f"{html.escape(text)}</span>"
        )
    return "".join(spans)


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _band_chip(value_db: float) -> str:
    band = BANDS[sum(value_db >= limit for limit in BAND_LIMITS_DB)]
    light, dark = LIGHT.bands[band], DARK.bands[band]
    return (
        '<span style="display:inline-block;padding:1px 8px;border-radius:5px;font-weight:600;'
        f"white-space:nowrap;color:{both(light.ink, dark.ink)};"
        f'background:{both(light.tint, dark.tint)}" title="{band}">{db(value_db)}</span>'
    )


def _meaning() -> None:
    st.space("small")
    st.header("The same in a network", anchor=False)
    st.markdown(
        "With *int8 per tensor*, all weights of a layer share one grid. One kernel with large"
        " weights widens the step for all kernels, and the small weights of the others merge, many"
        " of them into 0. *Per channel*, each kernel has its own scale."
    )
    navigation.link("compare", "See which models this breaks")
    st.caption(
        "The six values are those of the article *Accuracy Degradation After Quantization*"
        " (Sunplus C3)."
    )


def _telling_position(example: Example) -> int:
    """The value that the formulas follow: the first that merges, else the first."""
    merged = (i for i in range(len(example.values)) if example.group_of(i) is not None)
    return next(merged, 0)


def _scale(example: Example) -> str:
    return with_minus(f"{example.scale:.4g}")


def _bracketed(value: float) -> str:
    return f"({number(value)})" if value < 0 else number(value)


def _widened(example: Example) -> str:
    if min(example.values) > 0 or max(example.values) < 0:
        return ", widened to include 0, which must always have a code"
    return ""


if __name__ == "__main__":
    main()
