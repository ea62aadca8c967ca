"""What models can be narrowed down by, and how many remain for each choice.

One query over layers and the verdicts tell the traits of every model; choosing among them and
counting takes no further one. Within a facet any chosen value will do, and every facet must be met.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from quantstore.schemes import TARGETS, Target
from quantstore.store import Connection

if TYPE_CHECKING:
    import pandas as pd

Facet = Literal["verdict", "survives", "operator", "tag", "integers"]
FACETS: tuple[Facet, ...] = get_args(Facet)

# A model survives a target with one of these verdicts.
SURVIVING = ("watch", "fine")
YES, NO = "yes", "no"


@dataclass(frozen=True, slots=True)
class ModelTraits:
    """A model, and the values it has of each facet: none, one or several.

    ``verdict`` is the one under the target that was asked for, ``survives`` names all targets with
    a verdict in ``SURVIVING``. ``operator`` holds the operators with a broken layer under the
    target, such as ``Conv`` or ``depthwise Conv``. ``integers`` says whether the file stores the
    weights of a layer as integers, or on an integer grid.
    """

    model: str
    values: Mapping[Facet, frozenset[str]]


def model_traits(
    con: Connection, target: Target, verdicts: "pd.DataFrame"
) -> tuple[ModelTraits, ...]:
    """The traits of every model, by name.

    Args:
        verdicts: of every model under every target, as :func:`quantstore.queries.verdicts` gives
            them.
    """
    by_model: dict[str, dict[str, str]] = {}
    columns = (verdicts[name] for name in ("model", "target", "verdict"))
    for model, judged_target, verdict in zip(*columns, strict=True):
        by_model.setdefault(model, {})[judged_target] = verdict
    rows = con.rows(
        """
        with hurt as (
            select
                model_id,
                list(distinct if(is_depthwise, 'depthwise ' || op_type, op_type)) as operators
            from errors
            join layers using (layer_id)
            where scheme = $scheme
                -- What is not at risk at least is broken.
                and channel_sqnr_p10_db < (select lower_db from bands where band = 'at risk')
                and (len($families) = 0 or list_contains($families, op_family))
            group by model_id
        ),
        stored as (
            select model_id, bool_or(already_quantized) as has_integers
            from layers
            group by model_id
        )
        select model, operators, tags, has_integers
        from models
        left join hurt using (model_id)
        left join stored using (model_id)
        order by lower(model), model
        """,
        {"scheme": target.layer_scheme.name, "families": list(target.layer_families)},
    )
    traits = []
    for model, operators, tags, has_integers in rows:
        judged = by_model.get(model, {})
        traits.append(
            ModelTraits(
                model,
                {
                    "verdict": frozenset(filter(None, [judged.get(target.name)])),
                    "survives": frozenset(
                        name for name, verdict in judged.items() if verdict in SURVIVING
                    ),
                    "operator": frozenset(operators or []),
                    "tag": frozenset(tags),
                    "integers": frozenset([YES if has_integers else NO]),
                },
            )
        )
    return tuple(traits)


FacetChoices = Mapping[Facet, Collection[str]]


def facet_values(traits: Sequence[ModelTraits], facet: Facet) -> list[str]:
    """Every value that some model has, in the order to offer them in."""
    values = {value for model in traits for value in model.values[facet]}
    order = _ORDERS.get(facet)
    if order is not None:
        return [value for value in order if value in values]
    return sorted(values, key=lambda value: (value.lower(), value))


_ORDERS: dict[Facet, list[str]] = {
    "verdict": ["broken", "at risk", "watch", "fine", "untested"],
    "survives": list(TARGETS),
    "integers": [YES, NO],
}


def passing(traits: Sequence[ModelTraits], chosen: FacetChoices) -> list[str]:
    """The models that meet every facet of which something is chosen, in their order."""
    return [model.model for model in traits if _meets(model, chosen)]


def facet_counts(traits: Sequence[ModelTraits], facet: Facet, chosen: FacetChoices) -> Counter[str]:
    """How many models have each value of a facet, of those that meet the other facets."""
    others = {other: values for other, values in chosen.items() if other != facet}
    return Counter(
        value for model in traits if _meets(model, others) for value in model.values[facet]
    )


def _meets(model: ModelTraits, chosen: FacetChoices) -> bool:
    return all(
        not values or not model.values[facet].isdisjoint(values) for facet, values in chosen.items()
    )
