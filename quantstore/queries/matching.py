"""Two revisions of one network, layer by layer: which layer became which, and what that changed.

Frames have one row per layer in graph order, with the columns of the view ``layer_errors``. Nothing
here knows a store: frames in, a frame out.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING

import numpy as np

from quantstore.wording.text import short_name
from quantstore.wording.units import NO_BREAK_SPACE, count, counted, db

if TYPE_CHECKING:
    import pandas as pd

BY_NAME = "name"
BY_SHAPE = "shape and order"
ONLY_BEFORE = "only before"
ONLY_AFTER = "only after"
RULES = (BY_NAME, BY_SHAPE, ONLY_BEFORE, ONLY_AFTER)

# What ``match`` reads of a layer.
IDENTITY = ("layer", "operand", "op_family", "channel_count", "shape")

# A smaller change of SQNR may be the chance of rounding.
TELLING_CHANGE_DB = 1.0

# Numbers in names shift when a layer is added. Where shapes and their order alone explain this
# share of the smaller revision, and names less than this share of that, names are not believed.
_CLEARLY = 0.9

# With a smaller share of matched layers two networks are hardly revisions of one.
_ALIKE = 0.5

PositionPair = tuple[int, int]


def match(before: "pd.DataFrame", after: "pd.DataFrame") -> "pd.DataFrame":
    """Which layer of ``before`` is which of ``after``.

    Layers of the same (layer, operand) and operator family are the same, whatever became of their
    shape. Between them, layers are matched by operator family, shape and order, which finds those
    that an exporter named anew; a transposed weight counts as the same shape. Names that merely
    count (``Conv_12``) say nothing once a layer was added: where most of them stand for layers of
    another shape, and the order of shapes explains the networks better, all layers are matched by
    shape and order.

    Args:
        before: one row per layer in graph order; at least the columns of ``IDENTITY``.
        after: the same of the other revision.

    Returns:
        One row per pair and per layer without a partner, in the order of the later network. The
        column ``rule`` holds one of ``RULES``; every column ``x`` of the arguments is there as
        ``x_before`` and ``x_after``, empty where there is no such layer. A unit stays at the end:
        ``sqnr_db`` becomes ``sqnr_before_db``.
    """
    names = _names(before), _names(after)
    shapes = _shapes(before), _shapes(after)
    named = _named(names, shapes)
    by_order = _aligned(*shapes)
    alike = sum(
        shapes[0][before_index] == shapes[1][after_index] for before_index, after_index in named
    )
    smaller = min(len(before), len(after))
    if len(by_order) >= _CLEARLY * smaller and alike < _CLEARLY * len(by_order):
        rules = dict.fromkeys(by_order, BY_SHAPE)
    else:
        rules = {
            (before_index, after_index): BY_NAME
            if names[0][before_index] == names[1][after_index]
            else BY_SHAPE
            for before_index, after_index in named
        }
    return _joined(before, after, rules)


@dataclass(frozen=True, slots=True)
class ChangeCounts:
    """How many layers got better, worse, stayed, came and went."""

    better: int
    worse: int
    unchanged: int
    only_before: int
    only_after: int
    by_name: int
    by_shape: int

    @property
    def pairs(self) -> int:
        return self.by_name + self.by_shape

    @property
    def changed(self) -> int:
        return self.better + self.worse

    @property
    def smaller(self) -> int:
        """Layers of the smaller of the two networks."""
        return self.pairs + min(self.only_before, self.only_after)

    @property
    def are_alike(self) -> bool:
        """Whether enough layers match to call the two revisions of one network."""
        return self.pairs >= _ALIKE * self.smaller


def changes(before: "pd.DataFrame", after: "pd.DataFrame") -> "pd.DataFrame":
    """What :func:`match` finds, with what it means for int8.

    ``change_db`` is the gain of the SQNR that nine in ten channels reach: infinite where a layer
    became exact, minus infinite where it was, 0 between two exact ones, NaN without a partner.
    ``outcome`` is better, worse or unchanged (by less than ``TELLING_CHANGE_DB``), or the rule
    where a layer has no partner. ``layer`` is the later name, or the only one.
    """
    matched = match(before, after)
    has_pair = ~matched["rule"].isin([ONLY_BEFORE, ONLY_AFTER])
    was, is_now = (_reached(matched[f"channel_sqnr_p10_{side}_db"]) for side in ("before", "after"))
    with np.errstate(invalid="ignore"):
        change = np.where(was == is_now, 0.0, is_now - was)
    change = np.where(has_pair, change, np.nan)
    outcome = np.select(
        [~has_pair, change >= TELLING_CHANGE_DB, change <= -TELLING_CHANGE_DB],
        [matched["rule"], "better", "worse"],
        "unchanged",
    )
    layer = matched["layer_after"].where(matched["layer_after"].notna(), matched["layer_before"])
    import pandas as pd

    outcome_columns = pd.DataFrame({"layer": layer, "outcome": outcome, "change_db": change})
    return pd.concat([outcome_columns, matched], axis=1)


def tally(changed: "pd.DataFrame") -> ChangeCounts:
    """Count what :func:`changes` found."""
    outcomes, rules = changed["outcome"].value_counts(), changed["rule"].value_counts()
    return ChangeCounts(
        better=int(outcomes.get("better", 0)),
        worse=int(outcomes.get("worse", 0)),
        unchanged=int(outcomes.get("unchanged", 0)),
        only_before=int(rules.get(ONLY_BEFORE, 0)),
        only_after=int(rules.get(ONLY_AFTER, 0)),
        by_name=int(rules.get(BY_NAME, 0)),
        by_shape=int(rules.get(BY_SHAPE, 0)),
    )


def worst_first(changed: "pd.DataFrame") -> "pd.DataFrame":
    """Losses first, the largest on top; gains; then layers without a partner, as they stood."""
    return changed.sort_values("change_db", kind="stable", na_position="last")


NO_LAYER_IN_COMMON = "The two networks have no layer in common"
TWO_NETWORKS = "these look like two networks"


def few_layers_match(pair_count: int, layer_count: int) -> str:
    """Why a comparison of two models tells little; ``layer_count`` is of the smaller one."""
    pairs = f"{count(pair_count)} of {counted(layer_count, 'layer')}"
    return f"Only {pairs} match: {TWO_NETWORKS}, not two revisions of one"


def headline(changed: "pd.DataFrame", before: str, after: str) -> str:
    """``17 layers got better, 3 worse, 2 only in B; worst change: stem/Conv 31.2 → 8.4 dB``.

    Args:
        before: name of the earlier revision.
        after: name of the later one.
    """
    counts = tally(changed)
    if not counts.pairs:
        return NO_LAYER_IN_COMMON
    if not counts.are_alike:
        return few_layers_match(counts.pairs, counts.smaller)
    clauses = []
    if counts.better:
        clauses.append(f"{counted(counts.better, 'layer')} got better")
    if counts.worse:
        clauses.append(
            f"{count(counts.worse)} worse"
            if counts.better
            else f"{counted(counts.worse, 'layer')} got worse"
        )
    if not counts.changed:
        clauses.append(
            f"None of the {counted(counts.pairs, 'layer')} got better or worse"
            if counts.pairs > 1
            else "The layer got neither better nor worse"
        )
    for number, model in ((counts.only_before, before), (counts.only_after, after)):
        if number:
            clauses.append(f"{count(number)} only in {short_name(model, 40)}")
    summary = ", ".join(clauses)
    if not counts.changed:
        return summary
    import pandas as pd

    gains = changed["change_db"].to_numpy()
    extreme = changed.iloc[int(np.nanargmin(gains) if counts.worse else np.nanargmax(gains))]
    was, is_now = (
        None if pd.isna(value) else float(value)
        for value in (extreme["channel_sqnr_p10_before_db"], extreme["channel_sqnr_p10_after_db"])
    )
    which = "worst change" if counts.worse else "largest gain"
    return f"{summary}; {which}: {short_name(str(extreme['layer']), 48)} {from_to(was, is_now)}"


def from_to(before_db: float | None, after_db: float | None) -> str:
    """``31.2 → 8.4 dB``; ``exact → 8.4 dB``."""
    was, is_now = db(before_db), db(after_db)
    unit = is_now.rpartition(NO_BREAK_SPACE)[2]
    if was.endswith(unit):
        was = was.removesuffix(unit).rstrip(NO_BREAK_SPACE)
    return f"{was} → {is_now}"


def how_matched(changed: "pd.DataFrame") -> str:
    """Which rule paired the layers, in a sentence."""
    counts = tally(changed)
    if not counts.pairs:
        return "No layer of one has the name, or the operator and shape, of a layer of the other."
    by_name, by_shape = (
        f"{counted(number, 'layer')} {'is' if number == 1 else 'are'}"
        for number in (counts.by_name, counts.by_shape)
    )
    if not counts.by_shape:
        is_whole = counts.pairs > 1 and not counts.only_before and not counts.only_after
        sentence = f"{'Every layer is' if is_whole else by_name} matched by name."
    elif not counts.by_name:
        sentence = f"Names do not tell: {by_shape} matched by operator, shape and order."
    else:
        sentence = (
            f"{by_name} matched by name, {count(counts.by_shape)} by operator, shape and order"
            " between them."
        )
    return sentence


def _reached(values: "pd.Series") -> np.ndarray:
    """SQNRs with infinity for NULL: an exact layer has no finite one."""
    return values.astype(float).fillna(np.inf).to_numpy()


def _names(layers: "pd.DataFrame") -> list[Hashable]:
    return list(layers[["layer", "operand", "op_family"]].itertuples(index=False, name=None))


def _shapes(layers: "pd.DataFrame") -> list[Hashable]:
    """Operator family, channels and dimensions, the latter sorted: MatMul transposes what Gemm
    holds.
    """
    return [
        (family, int(channels), tuple(sorted(int(size) for size in shape)))
        for family, channels, shape in zip(
            layers["op_family"], layers["channel_count"], layers["shape"], strict=True
        )
    ]


def _named(
    names: tuple[list[Hashable], list[Hashable]], shapes: tuple[list[Hashable], list[Hashable]]
) -> list[PositionPair]:
    """Positions of equal names, and what lies between them matched by shape and order."""
    after_positions = {name: position for position, name in enumerate(names[1])}
    pairs = [
        (before_index, after_positions[name])
        for before_index, name in enumerate(names[0])
        if name in after_positions
    ]
    matched = [{pair[side] for pair in pairs} for side in (0, 1)]
    # Names bound what lies between them as far as both networks have them in the same order.
    corners = [*_aligned(*names), (len(names[0]), len(names[1]))]
    low = (0, 0)
    for corner in corners:
        before_free, after_free = (
            [index for index in range(low[side], corner[side]) if index not in matched[side]]
            for side in (0, 1)
        )
        pairs += [
            (before_free[before_index], after_free[after_index])
            for before_index, after_index in _aligned(
                [shapes[0][index] for index in before_free],
                [shapes[1][index] for index in after_free],
            )
        ]
        low = corner
    return pairs


def _aligned(before: Sequence[Hashable], after: Sequence[Hashable]) -> list[PositionPair]:
    """Positions of equal items in the same order."""
    blocks = SequenceMatcher(None, before, after, autojunk=False).get_matching_blocks()
    return [(a + step, b + step) for a, b, size in blocks for step in range(size)]


def _joined(
    before: "pd.DataFrame", after: "pd.DataFrame", rules: dict[PositionPair, str]
) -> "pd.DataFrame":
    """One row per pair and per layer without one, in the order of the later network."""
    earlier = {after_index: before_index for before_index, after_index in rules}
    paired = set(earlier.values())
    # A layer that is gone stands behind the one that it followed.
    gone: dict[int | None, list[int]] = {}
    followed: int | None = None
    for before_index in range(len(before)):
        if before_index in paired:
            followed = before_index
        else:
            gone.setdefault(followed, []).append(before_index)
    rows: list[tuple[int | None, int | None, str]] = []

    def add_gone(behind: int | None) -> None:
        rows.extend((before_index, None, ONLY_BEFORE) for before_index in gone.get(behind, ()))

    import pandas as pd

    add_gone(None)
    for after_index in range(len(after)):
        partner = earlier.get(after_index)
        rows.append(
            (partner, after_index, ONLY_AFTER if partner is None else rules[partner, after_index])
        )
        if partner is not None:
            add_gone(partner)
    return pd.concat(
        [
            pd.DataFrame({"rule": [row[2] for row in rows]}, dtype=object),
            _taken(before, [row[0] for row in rows], "_before"),
            _taken(after, [row[1] for row in rows], "_after"),
        ],
        axis=1,
    )


def _taken(layers: "pd.DataFrame", positions: Iterable[int | None], suffix: str) -> "pd.DataFrame":
    """The rows at these positions, an empty one for None; whole numbers stay whole."""
    row_numbers = [-1 if position is None else position for position in positions]
    if -1 in row_numbers:
        nullable = {"i": "Int64", "b": "boolean"}
        layers = layers.astype(
            {
                name: nullable[dtype.kind]
                for name, dtype in layers.dtypes.items()
                if isinstance(dtype, np.dtype) and dtype.kind in nullable
            }
        )
    chosen = layers.reset_index(drop=True).reindex(row_numbers)
    return chosen.reset_index(drop=True).rename(columns=lambda name: _suffixed(str(name), suffix))


def _suffixed(column: str, suffix: str) -> str:
    for unit in ("_db", "_bits"):
        if column.endswith(unit):
            return f"{column.removesuffix(unit)}{suffix}{unit}"
    return f"{column}{suffix}"
