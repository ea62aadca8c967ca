"""The button that hands out models as Parquet files in one zip, for whoever has no DuckDB."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from quantstore import settings, store
from quantstore.wording.units import file_size

# A download passes through memory, here and in the browser.
LARGEST_STORE_BYTES = 500_000_000


def draw(
    models: Sequence[str] | None, *, key: str, store_bytes: int, label: str = "Export as Parquet"
) -> None:
    """The button, or the command that does the same where a download would be too large.

    Args:
        models: what is exported; None for the whole store.
        store_bytes: size of the store on disk.
    """
    path = settings.store_path()
    if models is None and store_bytes > LARGEST_STORE_BYTES:
        st.markdown(
            f"The store is too large to download ({file_size(store_bytes)}). To export it as"
            " Parquet"
            " files, run:"
        )
        st.code(settings.command("export FOLDER"), language=None, width="content", wrap_lines=True)
        return
    names = None if models is None else list(models)

    def archive() -> bytes:
        # Only on the click.
        with tempfile.TemporaryDirectory(prefix="quantstore-") as folder:
            target = Path(folder) / "export.zip"
            store.export_zip(path, target, names)
            return target.read_bytes()

    st.download_button(
        label,
        archive,
        file_name="quantstore.zip" if names is None else f"quantstore-{len(names)}-models.zip",
        mime="application/zip",
        key=key,
        icon=":material/table:",
        on_click="ignore",
        help="A zip with one Parquet file per table, for pandas, Polars, Spark and others."
        " `quantstore import` reads it, too.",
    )
