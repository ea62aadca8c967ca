"""Questions about the layers of a model, and about one of them."""

from typing import TYPE_CHECKING, Any

from quantstore.layer import DEAD_SHARE
from quantstore.queries.lookup import model_key
from quantstore.schemes import SCHEMES
from quantstore.store import Connection
from quantstore.wording.causes import NARROW_CHANNEL_SHARE

if TYPE_CHECKING:
    import pandas as pd

# Bins of the small histogram of channel SQNR in tables: 0 to 50 dB, the last one open.
SPARK_BINS = 25
SPARK_DB_PER_BIN = 2

# How a chart can order the channels of a layer, and how a table can.
CHANNEL_ORDERS = ("by index", "widest first")
CHANNEL_SORTS = ("worst first", "by index", "widest first", "most outliers first")
# Beyond this many columns one of a chart is thinner than two pixels.
MOST_COLUMNS = 640


def found_by_name(layers: "pd.DataFrame", text: str) -> "pd.DataFrame":
    """Those layers whose name or module path contains the text, in any case.

    Names that a machine made, such as ``node_conv2d_17``, say less than the module they come from.
    """
    named, of_module = (
        layers[column].fillna("").str.contains(text, case=False, regex=False)
        for column in ("layer", "module_path")
    )
    return layers[named | of_module]


def worst_layers(con: Connection, model: str, scheme: str) -> "pd.DataFrame":
    """One row per layer of a model, worst first, with what its causes are read from.

    ``rank`` counts from 1; ``spark`` holds the number of channels in each 2 dB bin of SQNR;
    ``per_channel_p10_db`` is what the per-channel scheme of the same symmetry reaches. Channels
    that round to zero and narrow ones are counted without dead ones.
    """
    return con.frame(
        """
        with chosen as (
            select *
            from layer_errors
            where model = $model and scheme = $scheme
        ),
        per_channel as (
            select layer_id, channel_sqnr_p10_db as per_channel_p10_db
            from errors
            semi join chosen using (layer_id)
            where scheme = $per_channel
        ),
        -- Of these layers first: what is asked of them afterwards would read every channel.
        rounded as materialized (
            select layer_id, channel, sqnr_db, zeroed_fraction
            from channel_errors
            semi join chosen using (layer_id)
            where scheme = $scheme
        ),
        sparks as (
            select
                layer_id,
                histogram(
                    least(floor(coalesce(sqnr_db, 1e9) / $bin_db), $bins - 1)::integer
                ) as counts
            from rounded
            group by layer_id
        ),
        living as (
            select
                channels.layer_id,
                channel,
                channels.weight_range < $narrow * chosen.abs_max as is_narrow
            from channels
            join chosen using (layer_id)
            where greatest(-channels.weight_min, channels.weight_max) >= $dead * chosen.abs_max
        ),
        flattened as (
            select layer_id, count(*) as flattened_channels
            from rounded
            join living using (layer_id, channel)
            where zeroed_fraction = 1
            group by layer_id
        ),
        narrow as (
            select layer_id, count(*) filter (is_narrow) as narrow_channels
            from living
            group by layer_id
        )
        select
            row_number() over (
                order by channel_sqnr_p10_db nulls last, chosen.zeroed_fraction desc, depth
            ) as rank,
            chosen.*,
            channel_spread_bits, symmetric_span_over_rms,
            coalesce(flattened_channels, 0) as flattened_channels,
            coalesce(narrow_channels, 0) as narrow_channels,
            per_channel_p10_db,
            list_transform(range($bins), lambda bin: coalesce(counts[bin::integer], 0)::bigint)
                as spark
        from chosen
        join (
            select layer_id, channel_spread_bits, symmetric_span_over_rms from model_layers
        ) using (layer_id)
        left join per_channel using (layer_id)
        left join sparks using (layer_id)
        left join flattened using (layer_id)
        left join narrow using (layer_id)
        order by rank
        """,
        {
            "model": model,
            "scheme": scheme,
            "per_channel": _per_channel(scheme),
            "bins": SPARK_BINS,
            "bin_db": SPARK_DB_PER_BIN,
            "narrow": NARROW_CHANNEL_SHARE,
            "dead": DEAD_SHARE,
        },
    )


def ranked_layers(con: Connection, model: str, scheme: str) -> "pd.DataFrame":
    """One row per layer of a model, as :func:`worst_layers` ranks them: what names it, no more."""
    return con.frame(
        """
        select
            row_number() over (
                order by channel_sqnr_p10_db nulls last, zeroed_fraction desc, depth
            ) as rank,
            layer_id, layer, operand, depth
        from layers
        join errors using (layer_id)
        where model_id = $model_id and scheme = $scheme
        order by rank
        """,
        {"model_id": model_key(con, model), "scheme": scheme},
    )


def _per_channel(scheme: str) -> str | None:
    """The scheme that differs in its scale for each channel alone; None where none is measured."""
    try:
        return SCHEMES[scheme].per_channel.name
    except LookupError:
        return None


def layer_address(con: Connection, layer_id: int) -> tuple[str, str] | None:
    """The model and the label of a layer; None where it was removed meanwhile.

    The label is the layer's name, with the operand where a node has several.
    """
    rows = con.rows(
        """
        select model, layer || case when operands > 1 then ' (' || operand || ')' else '' end
        from (
            select layer_id, model, layer, count(*) over (partition by layer) as operands, operand
            from layers
            join models using (model_id)
            where model_id = (select model_id from layers where layer_id = $layer_id)
        )
        where layer_id = $layer_id
        """,
        {"layer_id": layer_id},
    )
    return rows[0] if rows else None


def layer_details(con: Connection, layer_id: int) -> dict[str, object]:
    """One layer's row of model_layers."""
    frame = con.frame("from model_layers where layer_id = ?", [layer_id])
    return {str(name): value for name, value in frame.iloc[0].to_dict().items()}


def layer_schemes(con: Connection, layer_id: int) -> "pd.DataFrame":
    """One row per scheme for a layer: its errors and its band."""
    return con.frame("from layer_errors where layer_id = ?", [layer_id])


def layer_sparks(con: Connection, layer_id: int) -> dict[str, list[int]]:
    """How many channels of a layer are in each 2 dB bin of SQNR, by int8 scheme."""
    return dict(
        con.rows(
            """
            with counted as (
                select
                    scheme,
                    histogram(
                        least(floor(coalesce(sqnr_db, 1e9) / $bin_db), $bins - 1)::integer
                    ) as counts
                from channel_errors
                where layer_id = $layer_id
                group by scheme
            )
            select
                scheme,
                list_transform(range($bins), lambda bin: coalesce(counts[bin::integer], 0)::bigint)
            from counted
            """,
            {"layer_id": layer_id, "bins": SPARK_BINS, "bin_db": SPARK_DB_PER_BIN},
        )
    )


def layer_channel_columns(
    con: Connection,
    layer_id: int,
    scheme: str,
    *,
    order: str = CHANNEL_ORDERS[0],
    first: int = 0,
    last: int | None = None,
) -> "pd.DataFrame":
    """What a chart of a layer's channels draws: one row for each, or for neighbours together.

    Channels without a finite weight are left out. Where there are more than ``MOST_COLUMNS``,
    ``channels`` of them share a row: the extremes of them all, typical quartiles, and the SQNR and
    band of the worst. ``is_outlier`` marks what ``outlier_channel_count`` counts.

    Args:
        order: one of ``CHANNEL_ORDERS``.
        first: the place in that order to begin with, from 0.
        last: the place to end with; None for the last one.
    """
    return con.frame(
        """
        with own as (
            select
                *,
                row_number() over (
                    order by case $order when 'widest first' then -weight_range end, channel
                ) - 1 as place,
                quantile_cont(weight_range, 0.25) over () as lower_quartile,
                quantile_cont(weight_range, 0.75) over () as upper_quartile
            from channels
            where layer_id = $layer_id and weight_min is not null
        ),
        shown as (
            select
                *,
                (place - $first) // ceil(count(*) over () / $most)::bigint as position,
                weight_range > upper_quartile + 1.5 * (upper_quartile - lower_quartile)
                    as is_outlier
            from own
            where place between $first and coalesce($last, place)
        ),
        together as (
            select
                position,
                arg_min(channel, place) as first,
                arg_max(channel, place) as last,
                min(place) as place,
                count(*) as channels,
                min(weight_min) as weight_min,
                median(whisker_low) as whisker_low,
                median(q1) as q1,
                median(shown.median) as median,
                median(q3) as q3,
                median(whisker_high) as whisker_high,
                max(weight_max) as weight_max,
                max(weight_range) as weight_range,
                sum(outlier_count)::bigint as outlier_count,
                bool_or(is_outlier) as is_outlier,
                min(coalesce(sqnr_db, 'infinity')) as worst_db,
                max(zeroed_fraction) as zeroed_fraction
            from shown
            left join (
                select channel, sqnr_db, zeroed_fraction
                from channel_errors
                where layer_id = $layer_id and scheme = $scheme
            ) using (channel)
            group by position
        )
        select
            together.* exclude (position, worst_db),
            nullif(worst_db, 'infinity') as sqnr_db,
            band
        from together
        asof left join bands on worst_db >= bands.lower_db
        order by position
        """,
        {
            "layer_id": layer_id,
            "scheme": scheme,
            "order": order,
            "first": first,
            "last": last,
            "most": MOST_COLUMNS,
        },
    )


def layer_channel_facts(con: Connection, layer_id: int, scheme: str) -> dict[str, Any]:
    """What stands out among the channels of a layer that has a finite weight.

    ``known_channels`` hold a finite weight, ``zero_channels`` nothing but zeros. ``largest_abs``
    is the largest absolute weight, in ``largest_channel``; ``typical_abs`` the median over the
    channels. ``flattened_channels`` round to zero, ``narrow_channels`` are narrow beside the layer,
    dead ones left out. ``bands`` counts the known channels by their own band under the scheme.
    """
    frame = con.frame(
        """
        with whole as (
            select abs_max from layers where layer_id = $layer_id
        ),
        own as (
            select
                channel,
                greatest(-weight_min, weight_max) as abs_max,
                abs_max >= $dead * (select abs_max from whole) as is_alive,
                weight_range < $narrow * (select abs_max from whole) as is_narrow
            from channels
            where layer_id = $layer_id and weight_min is not null
        ),
        rounded as (
            select coalesce(sqnr_db, 'infinity') as known_db, zeroed_fraction, is_alive
            from channel_errors
            join own using (channel)
            where layer_id = $layer_id and scheme = $scheme
        ),
        judged as (
            select band, count(*) as channels
            from rounded
            asof join bands on known_db >= bands.lower_db
            group by band
        )
        select
            count(*) as known_channels,
            count(*) filter (abs_max = 0) as zero_channels,
            arg_max(channel, abs_max) as largest_channel,
            max(abs_max) as largest_abs,
            median(abs_max) as typical_abs,
            (select count(*) from rounded where is_alive and zeroed_fraction = 1)
                as flattened_channels,
            count(*) filter (is_alive and is_narrow) as narrow_channels,
            (select map(list(band), list(channels)) from judged) as bands
        from own
        """,
        {
            "layer_id": layer_id,
            "scheme": scheme,
            "narrow": NARROW_CHANNEL_SHARE,
            "dead": DEAD_SHARE,
        },
    )
    return {str(name): value for name, value in frame.iloc[0].to_dict().items()}


def layer_channel_rows(
    con: Connection,
    layer_id: int,
    scheme: str,
    *,
    order: str = CHANNEL_SORTS[0],
    channels: tuple[int, int] | None = None,
    skip: int = 0,
    limit: int | None = None,
) -> "pd.DataFrame":
    """One row per output channel: its figures, and its SQNR under each int8 scheme.

    ``sqnr_db``, ``zeroed_fraction`` and ``band`` are those under ``scheme``. A SQNR is NULL where
    the channel comes back exactly.

    Args:
        order: one of ``CHANNEL_SORTS``.
        channels: the first and the last one to list; None for all.
        skip: rows to leave out at the beginning.
        limit: rows at most; None for all.
    """
    low, high = channels or (0, None)
    return con.frame(
        """
        with measured as (
            select
                channel,
                max(sqnr_db) filter (scheme = $scheme) as sqnr_db,
                max(zeroed_fraction) filter (scheme = $scheme) as zeroed_fraction,
                max(sqnr_db) filter (scheme = 'int8_tensor_symmetric')
                    as int8_tensor_symmetric_db,
                max(sqnr_db) filter (scheme = 'int8_tensor_asymmetric')
                    as int8_tensor_asymmetric_db,
                max(sqnr_db) filter (scheme = 'int8_channel_symmetric')
                    as int8_channel_symmetric_db,
                max(sqnr_db) filter (scheme = 'int8_channel_asymmetric')
                    as int8_channel_asymmetric_db
            from channel_errors
            where layer_id = $layer_id
            group by channel
        ),
        own as (
            select *
            from channels
            where layer_id = $layer_id and channel between $low and coalesce($high, channel)
        )
        select
            own.channel, band, measured.* exclude (channel),
            own.* exclude (layer_id, channel)
        from own
        left join measured using (channel)
        asof left join bands on coalesce(sqnr_db, 'infinity') >= bands.lower_db
        order by
            case $order
                when 'worst first' then coalesce(sqnr_db, 'infinity')
                when 'widest first' then -weight_range
                when 'most outliers first' then -outlier_count
            end nulls last,
            case $order when 'worst first' then -zeroed_fraction end,
            own.channel
        limit $limit offset $skip
        """,
        {
            "layer_id": layer_id,
            "scheme": scheme,
            "order": order,
            "low": low,
            "high": high,
            "skip": skip,
            "limit": limit,
        },
    )


def layer_histogram(con: Connection, layer_id: int) -> "pd.DataFrame":
    """One row per bin of a layer's histogram."""
    return con.frame(
        """
        select bin, bin_low, bin_high, weights
        from histogram_bins
        where layer_id = ?
        order by bin
        """,
        [layer_id],
    )


def layer_clipping(con: Connection, layer_id: int) -> "pd.DataFrame":
    """One row per bit width, measure and clipping threshold of a layer, thresholds ascending.

    ``threshold`` is a share of the largest absolute weight; ``sqnr_db`` is NULL where the weights
    come back exactly; ``is_best`` marks one threshold of each curve. The channels' few thresholds
    are joined by that of the least squared error, whose scheme is measured anyway.
    """
    return con.frame(
        """
        with curves as (
            select * from clipping where layer_id = $layer_id
        ),
        points as (
            select
                bits,
                measure,
                best_threshold,
                unnest(thresholds) as threshold,
                unnest(sqnr_db) as sqnr_db
            from curves
            union all
            select
                channels.bits,
                channels.measure,
                channels.best_threshold,
                tensor.best_threshold,
                case channels.measure
                    when 'channel_p10' then channel_sqnr_p10_db
                    else channel_sqnr_median_db
                end
            from curves as channels
            join curves as tensor on tensor.bits = channels.bits and tensor.measure = 'tensor'
            join errors
                -- Said of its rows themselves: only what is filtered by a layer is found at once.
                on errors.layer_id = $layer_id
                and errors.scheme = 'int8_tensor_symmetric_mse'
            where channels.measure in ('channel_p10', 'channel_median')
                and channels.bits = 8
                and not list_contains(channels.thresholds, tensor.best_threshold)
        )
        select
            bits, measure, threshold, sqnr_db,
            row_number() over (
                partition by bits, measure
                -- Rounded values tie.
                order by
                    coalesce(sqnr_db, 'infinity') desc, threshold <> best_threshold, threshold
            ) = 1 as is_best
        from points
        order by bits desc, measure, threshold
        """,
        {"layer_id": layer_id},
    )


def layer_bits_needed(con: Connection, layer_id: int) -> dict[str, int | None]:
    """The fewest bits that keep a layer fine, by granularity; None where 16 are not enough."""
    return dict(
        con.rows("select granularity, bits from bits_needed where layer_id = ?", [layer_id])
    )


def layer_equalization(con: Connection, layer_id: int, scheme: str) -> "pd.DataFrame":
    """One row per neighbour that a layer could share scale with, the better one first.

    ``before_db`` and ``after_db`` are the layer's own channel p10, those with ``partner_`` the
    neighbour's; NULL where it is infinite. ``is_before`` says whether the neighbour feeds it.
    """
    return con.frame(
        """
        select
            own.partner_layer_id,
            partners.layer as partner,
            partners.depth < layers.depth as is_before,
            own.channel_sqnr_p10_before_db as before_db,
            own.channel_sqnr_p10_after_db as after_db,
            own_bands.band,
            own_bands_after.band as band_after,
            theirs.channel_sqnr_p10_before_db as partner_before_db,
            theirs.channel_sqnr_p10_after_db as partner_after_db,
            their_bands.band as partner_band,
            their_bands_after.band as partner_band_after
        from equalization as own
        join equalization as theirs
            on theirs.layer_id = own.partner_layer_id
            and theirs.partner_layer_id = own.layer_id
            and theirs.scheme = own.scheme
        join layers on layers.layer_id = own.layer_id
        join layers as partners on partners.layer_id = own.partner_layer_id
        asof join bands as own_bands
            on coalesce(own.channel_sqnr_p10_before_db, 'infinity') >= own_bands.lower_db
        asof join bands as own_bands_after
            on coalesce(own.channel_sqnr_p10_after_db, 'infinity') >= own_bands_after.lower_db
        asof join bands as their_bands
            on coalesce(theirs.channel_sqnr_p10_before_db, 'infinity') >= their_bands.lower_db
        asof join bands as their_bands_after
            on coalesce(theirs.channel_sqnr_p10_after_db, 'infinity') >= their_bands_after.lower_db
        where own.layer_id = $layer_id and own.scheme = $scheme
        order by after_db desc nulls first, partners.depth
        """,
        {"layer_id": layer_id, "scheme": scheme},
    )


def layer_findings(con: Connection, layer_id: int) -> "pd.DataFrame":
    """What stands out about one layer, the gravest first."""
    return con.frame(
        """
        select kind, severity, message, remedy
        from findings
        where layer_id = ?
        order by list_position(['problem', 'warning', 'note'], severity), kind
        """,
        [layer_id],
    )


def layer_rescues(con: Connection, model: str, scheme: str) -> "pd.DataFrame":
    """One row per layer of a model: what could rescue it under one scheme, as far as it is stored.

    ``clipped_p10_db`` is what clipping the range reaches where the scheme is per tensor,
    ``equalized_p10_db`` what the better neighbour could give; NULL where nothing is stored, and
    infinite where no error is left. ``bits_tensor``, ``bits_channel`` and ``bits_block`` are the
    bits needed, -1 where the most bits are not enough.
    """
    return con.frame(
        """
        with own as (
            select layer_id, depth
            from layers
            where model_id = (select model_id from models where model = $model)
        ),
        needed as (
            select
                layer_id,
                max(coalesce(bits, -1)) filter (granularity = 'tensor') as bits_tensor,
                max(coalesce(bits, -1)) filter (granularity = 'channel') as bits_channel,
                max(coalesce(bits, -1)) filter (granularity = 'block') as bits_block
            from bits_needed
            semi join own using (layer_id)
            group by layer_id
        ),
        equalized as (
            select
                layer_id,
                max(coalesce(channel_sqnr_p10_after_db, 'infinity')) as equalized_p10_db
            from equalization
            semi join own using (layer_id)
            where scheme = $scheme
            group by layer_id
        )
        select
            own.layer_id,
            case when clipped.layer_id is not null
                then coalesce(clipped.channel_sqnr_p10_db, 'infinity') end as clipped_p10_db,
            equalized_p10_db,
            bits_tensor, bits_channel, bits_block
        from own
        left join errors as clipped
            on clipped.layer_id = own.layer_id and clipped.scheme = $scheme || '_mse'
        left join needed on needed.layer_id = own.layer_id
        left join equalized on equalized.layer_id = own.layer_id
        order by depth
        """,
        {"model": model, "scheme": scheme},
    )
