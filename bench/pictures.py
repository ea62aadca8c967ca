"""The pictures of the README: pages of the app on the example models, into docs/images.

Needs Chromium. ``make pictures`` draws them anew; look at them before they are committed.
"""

import io
import sys
import tempfile
from pathlib import Path

import numpy as np
from onnxruntime.quantization import QuantFormat, quantize_static
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
IMAGES = ROOT / "docs" / "images"

sys.path.insert(0, str(ROOT))
from pages import app_on, chromium_path  # noqa: E402
from rescue import digits  # noqa: E402

from quantstore.pipeline import audits, rescues  # noqa: E402
from quantstore.pipeline.files import demo_paths  # noqa: E402
from quantstore.pipeline.fleet import ingest_many  # noqa: E402
from quantstore.rescuing.choices import RescueChoices  # noqa: E402

SIZE = {"width": 1280, "height": 1000}
# A palette halves the bytes; chosen so that rare colours, those of the bands, stay as they are.
COLOURS, HOW_CHOSEN = 256, Image.Quantize.MAXCOVERAGE
# By name: the address, the theme, and what must be there before the picture is taken.
PICTURES = {
    "compare": ("?target=int8_tensor", "light", "digits-rescaled"),
    "model": ("model?model=digits-rescaled&target=int8_tensor", "light", "Test runs"),
    "rescue": ("rescue?model=digits-rescaled&target=int8_channel", "light", "Step by step"),
    "audit": ("audit?model=digits-rescaled-int8", "light", "What int8 costs"),
    "layer-dark": ("layer?model=digits-rescaled&target=int8_tensor", "dark", "Channels"),
}
# Charts are drawn after the page's script has ended.
SETTLE_MS = 4_000


def main() -> None:
    """Draw all of them."""
    with tempfile.TemporaryDirectory(prefix="quantstore-pictures-") as folder:
        path = Path(folder) / "examples.duckdb"
        for result in ingest_many(list(demo_paths()), path, jobs=1):
            print(result.outcome, result.path, file=sys.stderr)
        rescued = next(path for path in demo_paths() if path.stem == "digits-rescaled")
        # Near the goal most steps are tried.
        choices = RescueChoices(target="int8_channel", samples=120, reach_db=35)
        rescues.run(rescued, path, digits(Path(folder)), choices)
        inputs = digits(Path(folder))
        audits.run(rescued, quantized(rescued, inputs, Path(folder)), path, inputs)
        with app_on(path) as url, sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=chromium_path())
            for name, (address, theme, text) in PICTURES.items():
                picture = _drawn(browser, f"{url}/{address}", theme, text)
                (IMAGES / f"{name}.png").write_bytes(picture)
                print(f"{name}: {len(picture) / 1e3:.0f} kB")
            browser.close()


class _Inputs:
    """One sample after another, None at the end: what onnxruntime's quantizer asks for."""

    def __init__(self, path: str) -> None:
        stored = np.load(path)
        # The name of the array does not matter to quantstore, that of the input does here.
        array = next(stored[key] for key in stored.files if key != "labels")
        self._remaining = iter([{"image": sample[None]} for sample in array[:60]])

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next sample."""
        return next(self._remaining, None)


def quantized(model: Path, inputs: str, folder: Path) -> Path:
    """The int8 file that onnxruntime's quantizer makes by default: one scale per tensor."""
    path = folder / f"{model.stem}-int8.onnx"
    quantize_static(model, path, _Inputs(inputs), quant_format=QuantFormat.QDQ, per_channel=False)
    return path


def _drawn(browser: Browser, address: str, theme: str, text: str) -> bytes:
    page = browser.new_page(viewport=SIZE, color_scheme=theme)
    try:
        page.goto(address)
        # Away from the sidebar, which shows a button below the pointer.
        page.mouse.move(SIZE["width"] - 5, SIZE["height"] - 5)
        page.get_by_text(text).first.wait_for(timeout=60_000)
        page.wait_for_timeout(SETTLE_MS)
        picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    finally:
        page.close()
    stream = io.BytesIO()
    few = picture.quantize(COLOURS, HOW_CHOSEN, dither=Image.Dither.NONE)
    few.save(stream, "PNG", optimize=True)
    return stream.getvalue()


if __name__ == "__main__":
    main()
