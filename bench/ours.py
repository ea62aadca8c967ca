"""quantstore's side of the bench: the same work that its commands do, with the imports apart.

``python bench/ours.py full MODEL.onnx`` does it once and prints its seconds as JSON. See
``timing.serve`` for what a child is.
"""

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from timing import serve

if TYPE_CHECKING:
    from quantstore.layer import Layer
    from quantstore.schemes import Scheme


def full(path: str) -> Callable[[], object]:
    """A whole ingest into a store that is there: read, hash, fold, measure everything, commit."""
    _import_libraries()
    from quantstore.pipeline.ingest import ingest_file
    from quantstore.pipeline.outcome import IngestChoices

    store = _empty_store(Path(path).parent)
    return lambda: ingest_file(Path(path), store, IngestChoices(replace=True, probe=False))


def four(path: str) -> Callable[[], object]:
    """The same with the four int8 schemes alone."""
    _import_libraries()
    from quantstore.numerics.sweep import SweepPlan
    from quantstore.pipeline.ingest import ingest_file
    from quantstore.pipeline.outcome import IngestChoices
    from quantstore.schemes import INT8_SCHEMES

    store = _empty_store(Path(path).parent)
    choices = IngestChoices(
        replace=True, plan=SweepPlan(schemes=INT8_SCHEMES, is_full=False), probe=False
    )
    return lambda: ingest_file(Path(path), store, choices)


def _empty_store(folder: Path) -> Path:
    """A store with its tables: making them happens once, not at every ingest."""
    from quantstore import store

    path = Path(tempfile.mkdtemp(dir=folder)) / "bench.duckdb"
    with store.writing(path):
        return path


def schemes(scheme_count: str, most_bits: str, rows: str, columns: str) -> Callable[[], object]:
    """One random layer under so many min-max schemes of 2 to so many bits, and nothing else."""
    _import_libraries()
    from quantstore.numerics.measure_layer import measure_layer
    from quantstore.numerics.sweep import SweepPlan

    chosen = dict(_min_max_schemes(int(scheme_count), int(most_bits)))
    plan = SweepPlan(schemes=chosen, is_full=False)
    layer = _random_layer(int(rows), int(columns))
    return lambda: measure_layer(layer, 0, plan)


def thresholds(threshold_count: str, path: str) -> Callable[[], object]:
    """Everything quantstore measures of every layer, with so many clipping thresholds."""
    _import_libraries()
    import numpy as np

    from quantstore import graph
    from quantstore.numerics.measure_layer import measure_layer

    requested_count = int(threshold_count)
    for name, module in list(sys.modules.items()):
        # In the module that defines them, and in any that took the name over.
        if name.startswith("quantstore.") and hasattr(module, "THRESHOLDS"):
            module.THRESHOLDS = np.geomspace(0.01, 1.0, requested_count)
    file = graph.open_model(Path(path))
    layers = [graph.read_layer(file, site, fold=True) for site in graph.find_sites(file)]

    def work() -> None:
        for depth, layer in enumerate(layers):
            curves = measure_layer(layer, depth).clipping
            if len(curves[0].sqnr_db) != requested_count:
                raise SystemExit(
                    f"{requested_count} thresholds asked for, {len(curves[0].sqnr_db)} used"
                )

    return work


def _import_libraries() -> None:
    """Whatever an ingest may import on its way."""
    from quantstore.process import instructions

    # As the command line does, before numpy loads.
    instructions.prefer_fast_sorting()
    import duckdb  # noqa: F401
    import numpy  # noqa: F401
    import onnx  # noqa: F401
    import onnx_ir  # noqa: F401
    import pandas  # noqa: F401
    import pyarrow  # noqa: F401


def _min_max_schemes(scheme_count: int, most_bits: int) -> "Iterator[tuple[str, Scheme]]":
    """Widths, granularities and symmetries, well mixed; from the start again under other names."""
    import random
    from itertools import islice, product

    from quantstore.schemes import Scheme

    widths = range(2, most_bits + 1)
    kinds = list(product(widths, ("tensor", "channel", "block"), (True, False)))
    repeats = -(-scheme_count // len(kinds))
    mixed = kinds * repeats
    # The first so many of them cost what the average one costs.
    random.Random(0).shuffle(mixed)
    for number, (bits, granularity, is_symmetric) in enumerate(islice(mixed, scheme_count)):
        name = f"bench{number}"
        yield name, Scheme(name, bits, granularity, is_symmetric)


def _random_layer(rows: int, columns: int) -> "Layer":
    import numpy as np

    from quantstore.layer import Layer

    weights = np.random.default_rng(0).standard_normal((rows, columns), dtype=np.float32)
    return Layer(
        name="/bench/MatMul",
        operand="B",
        op_type="MatMul",
        op_family="linear",
        weight_name="bench.weight",
        weight_dtype="float32",
        shape=weights.shape,
        channel_axis=0,
        group_count=1,
        is_depthwise=False,
        batchnorm_folded=False,
        mul_folded=False,
        already_quantized=False,
        stored_scheme=None,
        stored_step=None,
        weight_key=("bench",),
        weights=weights,
    )


if __name__ == "__main__":
    serve((full, four, schemes, thresholds), sys.argv[1:])
