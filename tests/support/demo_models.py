"""The demo models, what their table says of them, and the images they are tried on."""

from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "quantstore" / "demo_models"
README = ROOT / "examples" / "README.md"


def documented() -> dict[str, dict[str, str]]:
    """The table between the README's markers: cells by file and column."""
    text = README.read_text(encoding="utf-8")
    text = text.split("<!-- accuracy: begin -->")[1].split("<!-- accuracy: end -->")[0]
    header, _, *rows = [
        [cell.strip(" `") for cell in line.strip("|").split("|")]
        for line in text.strip().splitlines()
    ]
    return {row[0]: dict(zip(header, row, strict=True)) for row in rows}


@pytest.fixture(scope="module")
def test_split() -> tuple[np.ndarray, np.ndarray]:
    """The 450 images nobody trained on, with their labels."""
    datasets = pytest.importorskip("sklearn.datasets", reason="the digits come with scikit-learn")
    selection = pytest.importorskip("sklearn.model_selection")
    images, labels = datasets.load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    _, images, _, labels = selection.train_test_split(
        images, labels, test_size=0.25, stratify=labels, random_state=0
    )
    return images, labels
