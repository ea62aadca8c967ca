"""Templates of the report: values in, HTML out. Nothing but markup of the templates is markup."""

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Undefined

from quantstore.errors import printable
from quantstore.wording.text import breakable, listed, short_name
from quantstore.wording.units import NO_BREAK_SPACE, counted

FOLDER = Path(__file__).resolve().parent
# More of a name than anybody reads on paper; the whole of it is in the title.
LONGEST_NAME = 300


def render(template: str, **values: Any) -> str:
    """A template of ``templates/`` with values, each of which is shown as the text it is."""
    return _environment().get_template(template).render(**values)


def one_line(text: str) -> str:
    """Text, wherever it comes from, on one line, with control characters made visible."""
    # Our own words hold no-break spaces, which count as unprintable.
    return NO_BREAK_SPACE.join(map(printable, text.split(NO_BREAK_SPACE)))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    environment.filters |= {
        "breakable": lambda text: breakable(one_line(text)),
        "counted": counted,
        "css_class": lambda band: band.replace(" ", "-"),
        "listed": listed,
        "lower_first": lambda text: text[:1].lower() + text[1:],
        "upper_first": lambda text: text[:1].upper() + text[1:],
        # The end of a node's name tells more than its beginning.
        "shortened": lambda text: short_name(one_line(text), LONGEST_NAME),
    }
    return environment


def _visible(value: Any) -> Any:
    """What an expression gives, before it is escaped; finished markup stays as it is."""
    if isinstance(value, Undefined) or hasattr(value, "__html__"):
        return value
    return one_line(str(value))
