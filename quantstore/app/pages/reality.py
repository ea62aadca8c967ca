"""Predicted vs. measured: how well does each weight statistic predict the measured loss?"""

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from quantstore import queries
from quantstore.app.widgets import address, colours, components, navigation, notes, pickers, stores
from quantstore.charts import reality as charts
from quantstore.charts.common import ready
from quantstore.charts.reality import Statistic
from quantstore.numerics.correlation import LEAST_PAIRS, Correlation, spearman
from quantstore.schemes import SCHEMES, Scheme
from quantstore.wording.units import NO_BREAK_SPACE, counted, with_minus
from quantstore.wording.verdicts import MODES

STATISTICS = {
    "Largest range": Statistic(
        "max_weight_range", "largest weight range", "largest weight range of a layer", True
    ),
    "Range / std": Statistic(
        "median_range_over_std",
        "median range / std",
        "weight range / standard deviation, median layer",
        True,
    ),
    "Noise to signal": Statistic(
        "noise_to_signal",
        "summed noise-to-signal ratio",
        "noise-to-signal ratio per tensor, summed over the layers",
        True,
    ),
    "Worst channel p10": Statistic(
        "worst_p10_db",
        "channel p10 of the worst layer",
        "SQNR that 90 % of channels of the worst layer reach, dB",
        False,
        is_db=True,
    ),
}
MEANINGS = {
    "Largest range": "max − min of the widest layer; most people look at this first",
    "Range / std": "how many standard deviations the range spans, in the median layer",
    "Noise to signal": "the noise of all layers added up, as if none were amplified",
    "Worst channel p10": "the measure behind the bands, for the worst layer",
}
# From here on a statistic is called a good warning, below a weak one; a convention, no law.
STRONG, WEAK = 0.8, 0.5

NO_RUN_YET = "No model has been run yet"


def main() -> None:
    """Draw the page."""
    navigation.follow_click()
    scheme = pickers.scheme()
    with stores.open_store() as con:
        st.title("Predicted vs. measured")
        headline = st.empty()
        st.caption(
            "Weight statistics are cheap and explain why a network loses accuracy. This page checks"
            " how well they predict the measured loss, from the noise probe or your own data."
        )
        counts = stores.ask(con, queries.run_counts)
        if counts.empty:
            headline.header(NO_RUN_YET, anchor=False)
            st.markdown(
                "The store has values for weights only. Ingest a file again without `--no-probe`"
                " (the noise probe needs no data), or run a model on your own inputs on the Drift"
                " page."
            )
            return
        mode, is_real = _pick_run(counts, scheme)
        models = stores.ask(con, queries.reality, scheme.name, mode, is_real=is_real)
        limits = queries.band_limits(con)
    correlations = {
        label: _correlation(models, statistic) for label, statistic in STATISTICS.items()
    }
    headline.header(_headline(correlations, len(models), scheme, mode), anchor=False)
    if models.empty:
        st.info(_nothing_here(counts, scheme, mode, is_real=is_real))
        return
    label = pickers.choice("Weight statistic", list(STATISTICS), key="statistic")
    statistic = STATISTICS[label]
    title = f"{_correlation_text(correlations[label])}: {statistic.title} vs. measured SQNR"
    _chart(models, statistic, limits, title)
    colours.legend(limits)
    notes.note(_notes(models, statistic, is_real=is_real))
    _table(correlations, label)


def _pick_run(counts: pd.DataFrame, scheme: Scheme) -> tuple[str, bool]:
    """Which runs: what was quantized, and on which inputs."""
    scheme_counts = counts[counts["scheme"] == scheme.name]
    pool = scheme_counts if not scheme_counts.empty else counts
    with st.container(horizontal=True, gap="medium"):
        modes = [mode for mode in ("both", "weights", "activations") if mode in set(pool["mode"])]
        labels = {MODES[mode]: mode for mode in modes}
        picked = pickers.choice("Quantize", list(labels), key="quantized")
        is_real = False
        if counts["is_real"].any():
            kinds = ["Noise probe", "My own data"]
            is_real = pickers.choice("Run on", kinds, key="run_on") == kinds[1]
    return labels[picked], is_real


def _correlation(models: pd.DataFrame, statistic: Statistic) -> Correlation:
    values = models[statistic.column].astype(float)
    if statistic.is_db:
        # Exact: better than any number.
        values = values.fillna(np.inf)
    has_value = values.notna()
    return spearman(values[has_value], models.loc[has_value, "output_sqnr_db"])


def _headline(correlations: dict[str, Correlation], models: int, scheme: Scheme, mode: str) -> str:
    under = f"under {scheme.title}, {MODES[mode]}"
    comparable = {
        label: correlation
        for label, correlation in correlations.items()
        if correlation.rho is not None
    }
    if models < LEAST_PAIRS:
        none = "no model" if models == 0 else f"only {counted(models, 'model')}"
        return f"Too few models: {none} measured {under}"
    if not comparable:
        return f"The models are too similar to compare {under}"
    best = max(comparable, key=lambda label: abs(comparable[label].rho or 0))
    strength = abs(comparable[best].rho or 0)
    name = STATISTICS[best].title
    figures = f"({_spearman(comparable[best])}, {counted(comparable[best].n, 'model')})"
    if _may_be_chance(comparable[best]):
        return (
            f"Too few models: the {name} predicts the measured ranking best {figures}, which may be"
            " chance"
        )
    if strength >= STRONG:
        how_well = "very well"
    elif strength >= WEAK:
        how_well = "fairly well"
    else:
        return f"No weight statistic predicts the measured ranking of {models} models {under}"
    return f"The {name} predicts the measured ranking {how_well} {figures}"


def _correlation_text(correlation: Correlation) -> str:
    """``Spearman −0.77, n = 15``."""
    if correlation.rho is None:
        few = "Too few models" if correlation.n < LEAST_PAIRS else "All models are equal"
        return f"{few}, n{NO_BREAK_SPACE}={NO_BREAK_SPACE}{correlation.n}"
    return f"{_spearman(correlation)}, n{NO_BREAK_SPACE}={NO_BREAK_SPACE}{correlation.n}"


def _spearman(correlation: Correlation) -> str:
    return f"Spearman{NO_BREAK_SPACE}{with_minus(f'{correlation.rho:.2f}')}"


def _nothing_here(counts: pd.DataFrame, scheme: Scheme, mode: str, *, is_real: bool) -> str:
    alternatives = counts[counts["is_real"] == is_real].head(3)
    figures_elsewhere = "; ".join(
        f"{SCHEMES[row['scheme']].title}, {MODES[row['mode']]}"
        f" ({counted(int(row['models']), 'model')})"
        for row in alternatives.to_dict("records")
        if row["scheme"] in SCHEMES and row["mode"] in MODES
    )
    runs = "on your own data" if is_real else "by the noise probe"
    sentence = f"No model was measured {runs} under {scheme.title}, {MODES[mode]}."
    return (
        f"{sentence} There are values for: {figures_elsewhere}." if figures_elsewhere else sentence
    )


def _chart(
    models: pd.DataFrame, statistic: Statistic, limits: dict[str, float], title: str
) -> None:
    def clicked() -> None:
        picked = st.session_state["reality"].selection.get(charts.CLICK, [])
        if picked:
            address.choose("model", str(picked[0]["model"]))
            navigation.open_next("model")

    drawable = models[statistic.column].notna()
    if statistic.is_log:
        drawable &= models[statistic.column] > 0
    if not drawable.any():
        st.info(f"No model has a finite {statistic.title}, so there is nothing to draw.")
        return
    st.altair_chart(
        ready(charts.scatter(models, statistic, limits, colours.palette(), title=title)),
        key="reality",
        on_select=clicked,
        alt=f"{title}, one dot per model",
    )


def _notes(models: pd.DataFrame, statistic: Statistic, *, is_real: bool) -> str:
    sentences = [
        "One dot per model, coloured by the band of its measured SQNR. Click a dot to open the"
        " model.",
        "Spearman's correlation compares only the order of the models: −1 or 1 is a perfect"
        " prediction, 0 is none. The 95 % interval below is wide when there are few models.",
    ]
    missing = int(models[statistic.column].isna().sum())
    if missing:
        sentences.append(f"{counted(missing, 'model')} without a finite value not drawn.")
    if is_real:
        sentences.append("Each model was run on its own data.")
    else:
        sentences.append(
            "The noise probe is itself an estimate; see the notes on the Compare page."
        )
    sentences.append("Models that are already quantized with this scheme are left out.")
    return " ".join(sentences)


def _table(correlations: dict[str, Correlation], chosen: str) -> None:
    def clicked() -> None:
        target = st.session_state["statistics"].clicked
        if target and target["row"] in STATISTICS:
            address.choose("statistic", target["row"])

    st.space("small")
    st.header("All four statistics", anchor=False)
    rows: list[dict[str, Any]] = []
    for label, correlation in correlations.items():
        name = STATISTICS[label].title
        interval = "–"
        if correlation.low is not None and correlation.high is not None:
            ends = f"{correlation.low:.2f} to {correlation.high:.2f}"
            interval = with_minus(ends.replace(" ", NO_BREAK_SPACE))
        rows.append(
            {
                "key": label,
                "chosen": label == chosen,
                "cells": [
                    {"text": f"{name[0].upper()}{name[1:]}", "small": MEANINGS[label]},
                    {
                        "text": "–"
                        if correlation.rho is None
                        else with_minus(f"{correlation.rho:.2f}")
                    },
                    {"text": interval},
                    {"text": str(correlation.n)},
                    {"text": _verdict(correlation)},
                ],
            }
        )
    components.table(
        columns=[
            {"title": "weight statistic", "kind": "name"},
            {"title": "Spearman", "kind": "pair", "number": True},
            {"title": "95 % interval", "kind": "pair", "number": True},
            {"title": "models", "kind": "pair", "number": True, "wide": True},
            {"title": "prediction", "kind": "pair"},
        ],
        rows=rows,
        key="statistics",
        on_click=clicked,
    )


def _verdict(correlation: Correlation) -> str:
    if correlation.rho is None:
        return "too few models" if correlation.n < LEAST_PAIRS else "all equal"
    if _may_be_chance(correlation):
        return "may be chance"
    strength = abs(correlation.rho)
    return "good" if strength >= STRONG else "fair" if strength >= WEAK else "weak"


def _may_be_chance(correlation: Correlation) -> bool:
    low, high = correlation.low, correlation.high
    return low is not None and high is not None and low < 0 < high


if __name__ == "__main__":
    main()
