"""The app's charts for a notebook: an open store and names in, one finished chart out.

Raises:
    UnknownModelError: the store does not hold a model that is asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from quantstore import queries
from quantstore.charts import codes, common, compare, drift, layer, model, rescue, revisions
from quantstore.charts.common import AnyChart
from quantstore.charts.measures import LABELS, measure_of
from quantstore.charts.palette import PALETTES, ThemeName
from quantstore.errors import QuantstoreError, hint_for, printable
from quantstore.queries import matching
from quantstore.schemes import Scheme
from quantstore.store import Connection, find_model
from quantstore.wording.drift import steepest_falls
from quantstore.wording.frames import figure_or_none

NO_MODELS = "there is no model to draw"
NO_RUN = "no run keeps its tensors"
NO_RESCUE = "no rescue tried anything"
NO_WEIGHTS = "the layer has no finite weights, so there is nothing to draw"
NO_CHANGE = "no layer changed"


@dataclass(frozen=True, slots=True)
class Look:
    """How a chart looks: its colours, and its width in pixels."""

    theme: ThemeName = "light"
    width: int = 760

    def finished(self, chart: AnyChart, title: str) -> AnyChart:
        """The chart as it stands in a notebook."""
        return common.standalone(chart, PALETTES[self.theme], self.width, printable(title))


def bricks(
    con: Connection,
    models: Sequence[str],
    scheme: Scheme,
    measure: str,
    *,
    only_convolutions: bool,
    look: Look,
) -> AnyChart:
    """How the layers of models differ: one brick per layer, on the axis of a measure."""
    for name in models:
        find_model(con, name)
    if not models:
        raise QuantstoreError(NO_MODELS, "ingest one first")
    if measure not in LABELS:
        hint = hint_for(measure, LABELS, f"there are {', '.join(LABELS)}")
        raise QuantstoreError(f"there is no measure {measure!r}", hint)
    profiles = queries.layer_profiles(con, list(models), scheme.name)
    if only_convolutions:
        profiles = compare.convolutions(profiles)
    palette = PALETTES[look.theme]
    chart = compare.bricks(profiles, measure_of(measure, scheme), palette)
    return look.finished(chart, f"{measure} of each {compare.kind_of(profiles)}, {scheme.title}")


def layers(con: Connection, name: str, scheme: Scheme, look: Look) -> AnyChart:
    """Where one network breaks: a bar per layer, measured down from 40 dB."""
    find_model(con, name)
    profiles = queries.layer_profiles(con, [name], scheme.name)
    chart = model.layer_map(profiles, PALETTES[look.theme])
    return look.finished(chart, f"{name}: SQNR of each layer, {scheme.title}")


def channels(
    con: Connection,
    name: str,
    layer_name: str,
    operand: str | None,
    scheme: Scheme,
    order: layer.ChannelOrder,
    look: Look,
) -> AnyChart:
    """A box per output channel of a layer, and below it the SQNR of the channel."""
    layer_id = queries.find_layer(con, name, layer_name, operand)
    columns = queries.layer_channel_columns(con, layer_id, scheme.name, order=order)
    if columns.empty:
        raise QuantstoreError(f"{name}, {layer_name}: {NO_WEIGHTS}", "choose another layer")
    details = queries.layer_details(con, layer_id)
    step = None
    if not scheme.is_per_channel:
        low, high = (float(str(details[end])) for end in ("weight_min", "weight_max"))
        grid = codes.shared_grid(low, high, scheme)
        step = codes.step_of(grid)
    chart = layer.channels_above_sqnr(
        columns,
        PALETTES[look.theme],
        order=order,
        axis=layer.default_axis(figure_or_none(details["channel_range_ratio"])),
        step=step,
    )
    return look.finished(chart, f"{name}, {layer_name}: output channels, {scheme.title}")


def error_along_depth(
    con: Connection, name: str, runs: Sequence[int] | None, *, with_local: bool, look: Look
) -> AnyChart:
    """Where the quantized model leaves the float one: a line per run, along the network.

    Args:
        runs: keys of runs that keep their tensors; the latest one by default.
    """
    find_model(con, name)
    kept = queries.drift_runs(con)
    kept = kept[kept["model"] == name].set_index("simulation_id")
    shown_runs = list(kept.index[:1]) if runs is None else list(runs)
    if not shown_runs or not set(shown_runs) <= set(kept.index):
        which = name if runs is None else f"{name}, run {', '.join(map(str, runs))}"
        hint = "run it, and keep its tensors, with: quantstore simulate MODEL.onnx --inputs FOLDER"
        raise QuantstoreError(f"{which}: {NO_RUN}", hint)
    titles = {
        run: printable(f"run {run}: {row['target'] or row['scheme']}, {row['input_source']}")
        for run, row in kept.loc[shown_runs].iterrows()
    }
    tensors = queries.drift(con, shown_runs)
    tensors = tensors.assign(run=tensors["simulation_id"].map(titles))
    chart = drift.lines(
        tensors, steepest_falls(tensors), PALETTES[look.theme], with_local=with_local
    )
    which = titles[shown_runs[0]] if len(shown_runs) == 1 else f"{len(shown_runs)} runs"
    return look.finished(chart, f"{name}, {which}")


def rescue_steps(con: Connection, name: str, rescue_id: int | None, look: Look) -> AnyChart:
    """What each step of a rescue gave on unseen inputs.

    Args:
        rescue_id: the latest rescue of the model that tried anything, by default.
    """
    find_model(con, name)
    rescues = queries.rescues(con, name)
    for row in rescues.to_dict("records"):
        if rescue_id in (None, row["rescue_id"]):
            steps = queries.rescue_steps(con, int(row["rescue_id"]))
            if len(steps):
                chart = rescue.staircase(
                    steps,
                    queries.band_limits(con),
                    PALETTES[look.theme],
                    reach_db=row["reach_db"],
                )
                title = f"{name}, rescue {row['rescue_id']} for {row['target']}"
                return look.finished(chart, title)
    which = name if rescue_id is None else f"{name}, rescue {rescue_id}"
    hint = "rescue it with: quantstore rescue MODEL.onnx --inputs FOLDER"
    raise QuantstoreError(f"{which}: {NO_RESCUE}", hint)


def diff(
    con: Connection, before: str, after: str, scheme: Scheme, order: revisions.PairOrder, look: Look
) -> AnyChart:
    """Every layer of two revisions: a ring where its SQNR was, a dot where it is now."""
    changed = queries.revision_changes(con, before, after, scheme.name)
    pairs = changed[~changed["rule"].isin([matching.ONLY_BEFORE, matching.ONLY_AFTER])]
    if order == "change" and not pairs["outcome"].isin(["better", "worse"]).any():
        raise QuantstoreError(f"{before}, {after}: {NO_CHANGE}", 'draw all with order="depth"')
    chart = revisions.dumbbells(pairs, PALETTES[look.theme], queries.band_limits(con), order=order)
    return look.finished(chart, f"{before} → {after}, {scheme.title}")
