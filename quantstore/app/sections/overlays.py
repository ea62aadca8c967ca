"""The section of the Model page on other viewers: the model's graph with what is known of it."""

import io
import zipfile
from collections.abc import Iterable

import streamlit as st

from quantstore import settings, store
from quantstore.app.widgets import downloads, reach
from quantstore.charts.palette import BANDS, LIGHT
from quantstore.file_formats import FORMATS, ONNX, QONNX
from quantstore.pipeline import freshness, kept, overlays
from quantstore.queries import Origin
from quantstore.rescuing.overlay import BandScale, Original, open_original
from quantstore.schemes import Target

HEADING = "Show in Model Explorer or Netron"
CAPTION = (
    "Model Explorer colours the nodes of the original file by band, remedy and measured values."
    " Netron shows the same as properties of each node. The exclude list names the nodes to keep in"
    " float, one per line: those that a search found, or else the broken layers."
)
# What a file is called behind the name of its model, its type, and what it holds.
LABELS = {
    "Model Explorer": ("node_data.zip", "application/zip", "Node data: JSON"),
    "Netron": ("annotated.onnx", "application/octet-stream", "The model: ONNX"),
    "Exclude list": ("exclude.txt", "text/plain", "Names of nodes: text"),
}
NO_FILE = "The file of this model is not available here. To annotate it, run in a terminal:"
CHANGED = "The file has changed since it was measured. To annotate it, ingest it again."
FROM_A_TERMINAL = (
    "This app is open to other computers, so it does not read files of its own. To annotate the"
    " file, run in a terminal:"
)


def section(origin: Origin, target: Target) -> None:
    """Draw the section.

    Args:
        origin: of the model, as the store has it.
    """
    file_format = FORMATS.get(origin.file_format, ONNX)
    if not file_format.has_graph:
        return
    st.space("small")
    st.header(HEADING, anchor=False)
    st.caption(CAPTION)
    is_offered = reach.is_this_computer_only()
    store_path = settings.store_path()
    path = kept.file_at_hand(origin.source, origin.sha256, store_path) if is_offered else None
    is_at_hand = path is not None
    is_changed = is_at_hand and freshness.all_fresh([origin])[origin.model].is_changed
    # Other formats have nothing to annotate; their layers are drawn by name all the same.
    is_onnx = file_format in (ONNX, QONNX)
    has_file = is_at_hand and is_onnx and not is_changed

    # Only on the click, and outside the script: store and file may have changed meanwhile.
    def graph_facts() -> overlays.GraphFacts:
        with store.reading(store_path) as con:
            return overlays.graph_facts_of(con, origin.model, target)

    def file() -> Original:
        return open_original(overlays.path_of(origin, None, store_path))

    def original() -> Original | None:
        return file() if has_file else None

    def node_data() -> bytes:
        facts = graph_facts()
        scale = BandScale(facts.limits, dict(zip(BANDS, LIGHT.band_fills, strict=True)))
        return _zipped(overlays.node_data(facts, scale, original()))

    def excluded() -> bytes:
        return overlays.excluded(graph_facts(), original()).content

    def annotated() -> bytes:
        return overlays.annotated(graph_facts(), file()).content

    making = dict(zip(LABELS, (node_data, annotated, excluded), strict=True))
    if not has_file:
        del making["Netron"]
    with st.container(horizontal=True):
        for label, content in making.items():
            ending, mime, explained = LABELS[label]
            st.download_button(
                label,
                content,
                file_name=f"{downloads.file_name(origin.model, target.name)}.{ending}",
                mime=mime,
                icon=":material/download:",
                on_click="ignore",
                key=f"overlay_{ending}",
                help=explained,
            )
    if has_file or not is_onnx:
        return
    if is_changed:
        st.caption(CHANGED)
        return
    st.caption(NO_FILE if is_offered else FROM_A_TERMINAL)
    command = settings.command(f"overlay NAME --file FILE --target {target.name}")
    st.code(command, language=None, width="content", wrap_lines=True)


def _zipped(files: Iterable[overlays.File]) -> bytes:
    """The files in one archive."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as folder:
        for file in files:
            folder.writestr(file.name, file.content)
    return archive.getvalue()
