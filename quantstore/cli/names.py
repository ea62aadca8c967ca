"""Arguments that are names: a shell completes them, and a mistyped one gets the most similar.

Completion runs at every press of a key: it loads DuckDB and nothing else that is heavy, waits for
nobody, and says nothing where the store cannot be read.
"""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from quantstore import settings
from quantstore.errors import QuantstoreError, hint_for

if TYPE_CHECKING:
    _Choice = click.Choice[str]
    _ParamType = click.ParamType[str]
else:
    # Not generic in every release of click.
    _Choice = click.Choice
    _ParamType = click.ParamType


class NameChoice(_Choice):
    """One of some names: targets, schemes."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The name, or the failure with the most similar one instead of them all."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            hint = hint_for(str(value), self.choices, "")
            if not hint:
                raise
            raise click.BadParameter(f"{not_among_them(value)}; {hint}", ctx, param) from error


def not_among_them(name: object) -> str:
    """What to say of a name that is none of those that there are."""
    return f"there is no {name!r}"


class ModelName(_ParamType):
    """The name of a model in the store, or where a command takes that as well, a file.

    Whether there is such a model is for the command to say.
    """

    name = "model"

    def __init__(self, *, or_file: bool = False) -> None:
        self._or_file = or_file

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The names that begin so, but for those that stand there already."""
        earlier_value = ctx.params.get(str(param.name))
        earlier = earlier_value if isinstance(earlier_value, tuple) else ()
        names = [
            name
            for name in stored_names(ctx.params.get("db"))
            if name.startswith(incomplete) and name not in earlier
        ]
        if not names and self._or_file:
            return [CompletionItem(incomplete, type="file")]
        return [CompletionItem(name) for name in names]


def stored_names(path: Path | None) -> Iterable[str]:
    """The models of a store, as far as a shell can show them; none where it cannot be read."""
    from quantstore import store

    with (
        suppress(QuantstoreError),
        store.reading(path or settings.store_path(), wait_seconds=0) as connection,
    ):
        rows = connection.rows("select model from models order by lower(model), model")
        # A line break would make two names of one.
        return [name for (name,) in rows if name.isprintable()]
    return []
