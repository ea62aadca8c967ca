"""What several pages use: the theme, the chosen scheme and model, the store, the empty page."""

import html
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import streamlit as st

from quantstore import queries, settings, store
from quantstore.errors import MissingStoreError
from quantstore.ingest import demo_paths
from quantstore.jobs import QUEUE
from quantstore.pages import components
from quantstore.palette import BANDS, DARK, LIGHT, PALETTES, Palette, ThemeName, both
from quantstore.schemes import DEFAULT_SCHEME, SCHEMES, Scheme
from quantstore.words import markdown

PAGES = Path(__file__).resolve().parent


def theme() -> ThemeName:
    """The theme to draw in: what the browser last reported, at first what Streamlit believes."""
    known = st.session_state.get("theme_name")
    if known is None:
        known = "dark" if st.context.theme.type == "dark" else "light"
        st.session_state["theme_name"] = known
    return "dark" if known == "dark" else "light"


def watch_theme() -> None:
    """Redraw when the person switches the theme: charts cannot follow it by themselves."""
    found = components.watch_theme(theme())
    if found is not None and found != theme():
        st.session_state["theme_name"] = found
        st.rerun()


def palette() -> Palette:
    """The colours of the theme on screen."""
    return PALETTES[theme()]


@contextmanager
def open_store() -> Iterator[store.Connection]:
    """The store for the length of the block.

    Raises:
        MissingStoreError: also where the store is empty; the frame then shows how to begin.
    """
    with store.reading(settings.store_path()) as con:
        if queries.store_size(con).models == 0:
            raise MissingStoreError("the store is empty")
        yield con


def scheme() -> Scheme:
    """The scheme that the sidebar (or a click in the matrix) chose; it is part of the address."""
    return SCHEMES.get(str(st.session_state.get("scheme")), DEFAULT_SCHEME)


def pick_scheme() -> None:
    """The picker of the scheme, on every page that judges."""
    if st.session_state.get("scheme") not in SCHEMES:
        st.session_state["scheme"] = DEFAULT_SCHEME.name
    st.selectbox(
        "Scheme",
        list(SCHEMES),
        key="scheme",
        format_func=lambda name: SCHEMES[name].title,
        bind="query-params",
        help="How the weights are rounded: who shares one scale, and whether zero sits in the"
        " middle of the codes. Every page judges by it.",
    )


def choose(**values: str) -> None:
    """Set what widgets show, from a callback: ``choose(model=..., scheme=...)``."""
    for key, value in values.items():
        st.session_state[key] = value


def go_to(page: str) -> None:
    """Open another page; what the address carries (model, layer, scheme) comes along."""
    st.switch_page(PAGES / f"{page}.py")


def legend(limits: dict[str, float], counts: dict[str, int] | None = None) -> None:
    """The bands with their limits, or with how many layers each holds."""
    items = []
    muted = both(LIGHT.muted, DARK.muted)
    for position, band in enumerate(BANDS):
        fill = both(LIGHT.bands[band].fill, DARK.bands[band].fill)
        if counts is not None:
            number = counts.get(band, 0)
            words = f"{number:,} layer{'' if number == 1 else 's'}"
        elif position == 0:
            words = f"below {limits[BANDS[1]]:g} dB"
        elif position == len(BANDS) - 1:
            words = f"{limits[band]:g} dB and more"
        else:
            words = f"{limits[band]:g} to {limits[BANDS[position + 1]]:g} dB"
        items.append(
            '<span style="white-space:nowrap;margin-right:16px">'
            f'<span style="display:inline-block;width:11px;height:11px;border-radius:2px;'
            f'background:{fill};margin-right:6px;vertical-align:-1px"></span>'
            f"<b style='font-weight:600'>{html.escape(band)}</b> "
            f'<span style="color:{muted}">{html.escape(words)}</span></span>'
        )
    st.html(f'<div style="font-size:12px;line-height:1.8">{"".join(items)}</div>')


def note(text: str) -> None:
    """One muted line of prose, as HTML; escape what comes from a file."""
    st.html(f'<div style="font-size:12px;color:{both(LIGHT.muted, DARK.muted)}">{text}</div>')


def add_examples() -> None:
    """Queue the example models that ship with the package."""
    for path in demo_paths():
        QUEUE.add(path, settings.store_path(), name=path.name, source=f"example {path.name}")


def empty_page(title: str) -> None:
    """What a page shows before there is a model."""
    if title != "Compare":
        st.title(title)
        st.write("There is no model in the store yet.")
        st.button(
            "Add the example models",
            type="primary",
            icon=":material/add:",
            on_click=add_examples,
            key="add_examples",
        )
        return
    st.title("Will your model survive int8?")
    st.markdown(
        "Add an ONNX file. quantstore measures every layer's weights under four int8 schemes and"
        " shows which layers break, why, and what would rescue them. Nothing leaves this computer."
    )
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button(
            "Add the example models",
            type="primary",
            icon=":material/add:",
            on_click=add_examples,
            key="add_examples",
        )
        st.caption("four small digit classifiers that ship with quantstore; one of them breaks")
    st.markdown("or upload a file or give its path in the sidebar, or run")
    st.code("quantstore ingest path/to/models", language=None, width="content")
    st.space("small")
    st.subheader("What you will see")
    with st.grid(3, min_column_width=230):
        for name, heading, words in _PROMISES:
            with st.container():
                st.image(str(PAGES.parent / "static" / f"empty-{name}-{theme()}.svg"))
                st.markdown(f"**{heading}**  \n{words}")
    st.page_link(
        PAGES / "example.py",
        label="New to quantization? Start with the worked example",
        icon=":material/straighten:",
    )


_PROMISES = (
    ("matrix", "Which model survives", "A verdict per model and scheme, in words."),
    (
        "network",
        "Which layers break",
        "The network from input to output; long bars are in trouble.",
    ),
    ("channels", "Why they break", "Every channel of a layer against the int8 grid it must share."),
)


def escaped(text: str) -> str:
    """A name for Markdown that shows it as itself."""
    return markdown(text)
