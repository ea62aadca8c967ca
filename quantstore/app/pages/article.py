"""Reproduce the article: why does int8 break one detector and not another?"""

import pandas as pd
import streamlit as st

from quantstore import queries
from quantstore.app.widgets import address, colours, drawing, navigation, notes, pickers, stores
from quantstore.charts import codes, compare, example, layer
from quantstore.charts.measures import WEIGHT_RANGE, measure_of
from quantstore.errors import printable
from quantstore.schemes import SCHEMES
from quantstore.store import Connection
from quantstore.wording import article, stories, worked_example
from quantstore.wording.text import breakable, markdown
from quantstore.wording.verdicts import verdict_sentence

SCHEME = article.TARGET.layer_scheme
# The article's toy grid has a zero point.
TOY_SCHEME = SCHEMES["int8_tensor_asymmetric"]


def main() -> None:
    """Draw the page."""
    navigation.follow_click()
    st.title("Reproduce the article", anchor=False)
    with stores.open_store() as con:
        headline = st.empty()
        st.caption(article.WHAT_IT_IS)
        worst_first = stores.worst_first(con, article.TARGET)
        pair = _pick(worst_first)
        models = list(dict.fromkeys(pair))
        st.caption(markdown(article.absent_models(worst_first)))
        profiles = queries.layer_profiles(con, models, SCHEME.name)
        counted = compare.convolutions(profiles)
        facts = {
            row["model"]: queries.model_facts(row)
            for row in stores.verdicts(con, models).to_dict("records")
            if row["target"] == article.TARGET.name
        }
        if len(models) == 2:
            answer = article.headline(facts[pair[0]], facts[pair[1]])
            headline.header(notes.escaped(answer), anchor=False)
        else:
            headline.header(article.SAME_MODEL, anchor=False)
        ranges = counted.groupby("model")["weight_range"].max().to_dict()
        story = article.weights_story([facts[model] for model in models], ranges)
        st.markdown(markdown(story))
        _values()
        _channels(con, profiles, models)
        _ranges(profiles, counted)
        for model in models:
            sentence = verdict_sentence(facts[model])
            st.markdown(f"**{notes.escaped(model)}**: {notes.escaped(sentence)}.")
        navigation.link(
            "compare",
            "Compare them further",
            query_params={"models": models, "target": article.TARGET.name},
            width="content",
        )


def _pick(worst_first: list[str]) -> tuple[str, str]:
    """The two models, both part of the address."""
    pickers.say_missing("model named", worst_first, "ruined", "spared")
    picked = []
    labels = {"ruined": "Instead of RTMDet-s", "spared": "Instead of YOLOv10-N"}
    with st.container(horizontal=True, vertical_alignment="bottom"):
        for default, (key, label) in zip(
            article.model_pair(worst_first), labels.items(), strict=True
        ):
            address.link(key, default=default, options=worst_first, is_always_written=True)
            picked.append(st.selectbox(label, worst_first, key=key, format_func=printable))
    return picked[0], picked[1]


def _values() -> None:
    """The six values of the article, on its grid."""
    st.space("small")
    st.header(article.VALUES, anchor=False)
    values = worked_example.parse_values(worked_example.ARTICLE_VALUES)
    worked = worked_example.work_out(values, TOY_SCHEME)
    finding = worked_example.headline(worked)
    st.markdown(f"{notes.escaped(finding)}.")
    enlarged = worked_example.enlarged_codes(worked)
    if enlarged is None:
        raise RuntimeError("the values of the article merge")
    points = worked_example.points(worked)
    drawing.chart(
        example.enlarged_line(
            points[points["code"].isin(enlarged)],
            worked_example.grid_points(worked, enlarged),
            worked_example.on_grid(worked.scale, worked.scale),
            colours.palette(),
        ),
        key="article_values",
        alt=finding,
    )
    navigation.link("example", "Work it out step by step", width="content")


def _channels(con: Connection, profiles: pd.DataFrame, models: list[str]) -> None:
    st.space("small")
    st.header(article.CHANNELS, anchor=False)
    st.caption(article.CHANNELS_NOTE)
    with st.grid(len(models), min_column_width=420, gap=("small", "large")):
        for model in models:
            with st.container():
                _channels_of(con, model, profiles[profiles["model"] == model])


def _channels_of(con: Connection, model: str, profiles: pd.DataFrame) -> None:
    st.subheader(notes.escaped(model), anchor=False)
    shown = article.layer_to_show(profiles.to_dict("records"))
    if shown is None:
        st.caption(article.NO_CHANNELS)
        return
    st.html(f'<div style="font-size:13px">{breakable(printable(str(shown.row["layer"])))}</div>')
    st.caption(shown.reason)
    channels = queries.layer_channel_columns(con, shown.layer_id, SCHEME.name)
    widest_first = channels.sort_values("weight_range", ascending=False)
    story = article.channels_story(
        int(shown.row["channel_count"]),
        [int(channel) for channel in widest_first.loc[widest_first["is_outlier"], "first"]],
        int(shown.row["channels_below_10db"]),
        float(widest_first["weight_range"].iloc[0]),
        float(channels["weight_range"].median()),
    )
    grid = codes.shared_grid(
        float(channels["weight_min"].min()), float(channels["weight_max"].max()), SCHEME
    )
    drawing.chart(
        layer.channel_boxes(
            channels,
            colours.palette(),
            order="by index",
            axis="linear",
            step=codes.step_of(grid),
        ),
        key=f"article_channels_{shown.layer_id}",
        alt=f"Weights of each output channel. {story}",
    )
    st.markdown(story)
    st.button(
        "Open the layer",
        key=f"article_layer_{shown.layer_id}",
        icon=":material/layers:",
        type="tertiary",
        on_click=navigation.open_layer,
        args=(shown.layer_id,),
    )


def _ranges(profiles: pd.DataFrame, counted: pd.DataFrame) -> None:
    st.space("small")
    st.header(article.RANGES, anchor=False)
    uncounted, without = compare.not_counted(profiles, counted)
    st.caption(f"{article.RANGES_NOTE} {stories.layers_counted(uncounted, without)}".strip())
    story = compare.range_story(counted, "weight_range")
    drawing.chart(
        compare.grouped_bars(counted, measure_of(WEIGHT_RANGE, SCHEME), colours.palette()),
        key="article_ranges",
        alt=f"How many layers have which weight range. {story}",
    )
    st.markdown(notes.escaped(story))


if __name__ == "__main__":
    main()
