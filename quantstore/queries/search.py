"""What a person may mean by a few letters: models, layers and tags, the best of each first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from quantstore.store import Connection

# More words than these narrow nothing down any further.
MOST_TERMS = 6


@dataclass(frozen=True, slots=True)
class Hit:
    """One thing that fits.

    ``name`` is the model's, the layer's or the tag's. ``model`` and ``layer_id`` are those of a
    layer, ``models`` is how many models have a tag.
    """

    name: str
    rank: int
    model: str = ""
    layer_id: int = 0
    models: int = 0


@dataclass(frozen=True, slots=True)
class Hits:
    """The best things of one kind, and how many there are in all."""

    best: tuple[Hit, ...]
    total: int

    @property
    def rank(self) -> int:
        """Of the best one: 0 where it is called just so; more than any where there is none."""
        return self.best[0].rank if self.best else _NO_RANK


_NO_RANK = 9


@dataclass(frozen=True, slots=True)
class SearchResults:
    """What fits, kind by kind."""

    models: Hits
    layers: Hits
    tags: Hits


def search(con: Connection, text: str, *, limit: int = 6) -> SearchResults:
    """Models, layers and tags whose names hold every word of the text, in any case.

    The words of a layer may also be those of its model, but for one. The best is called just so,
    then come names that begin with a word, hold it after a sign, hold it anywhere; the shorter
    first. No letter is a pattern. An empty text fits nothing.

    Args:
        limit: of each kind, at most.
    """
    terms = text.lower().split()[:MOST_TERMS]
    hits: dict[str, list[Hit]] = {"model": [], "layer": [], "tag": []}
    totals = dict.fromkeys(hits, 0)
    for kind_of_hit, total, *columns in _rows(con, terms, limit) if terms else ():
        hits[kind_of_hit].append(Hit(*columns))
        totals[kind_of_hit] = total
    models, layers, tags = (Hits(tuple(hits[name]), totals[name]) for name in hits)
    return SearchResults(models, layers, tags)


def _rows(con: Connection, terms: Sequence[str], limit: int) -> list[tuple[Any, ...]]:
    """Kind, how many there are of it, and the columns of a hit."""
    return con.rows(
        """
        with things as (
            select
                'layer' as kind, layer as title, lower(layer) as name, model,
                lower(model || ' ' || layer) as place, layer_id, 0 as models, depth
            from layers
            join models using (model_id)
            union all
            select 'model', model, lower(model), '', lower(model), 0, 0, 0
            from models
            union all
            select 'tag', tag, lower(tag), '', lower(tag), 0, count(*), 0
            from (select unnest(tags) as tag from models)
            group by tag
        ),
        fitting as (
            from things
            where len(list_filter($terms, lambda term: not contains(place, term))) = 0
                -- What the model alone is called by is a model.
                and len(list_filter($terms, lambda term: contains(name, term))) > 0
        ),
        -- Names repeat from model to model: each is judged once.
        ranks as (
            select
                name,
                list_min(list_transform(
                    $parts,
                    lambda part: case
                        when name = part then 0
                        when starts_with(name, part) then 1
                        when regexp_matches(
                            name[greatest(instr(name, part) - 1, 0)], '[^[:alnum:]]'
                        ) then 2
                        when contains(name, part) then 3
                        else 4
                    end
                )) as rank
            from (select distinct name from fitting)
        ),
        -- The best ones of a kind, each kind sorted no further than it is shown.
        best as (
            select kind, count(*) as total, min_by(
                {
                    'title': title, 'rank': rank, 'model': model,
                    'layer_id': layer_id, 'models': models
                },
                (rank, length(title), title, lower(model), model, depth),
                $limit
            ) as hits
            from fitting
            join ranks using (name)
            group by kind
        )
        select kind, total, unnest(hits, recursive := true)
        from best
        """,
        {"terms": list(terms), "parts": list({" ".join(terms), *terms}), "limit": limit},
    )
