"""The probe's child process: the side that answers.

A request is ``{"path": ..., "fold": ..., "asked": [[scheme, target], ...]}``; progress is any
number of ``{"facts": {...}}``, ``{"figure": {...}}`` and ``{"finding": {...}}``; the result is
None.
"""

import dataclasses
import gc
from pathlib import Path
from typing import Any

from quantstore.process.memory import keep_freed
from quantstore.process.serve import Reply, serve


def answer(request: dict[str, Any], reply: Reply) -> None:
    """Run the model on noise, and give each figure as soon as it is there."""
    from quantstore.run.plan import Probed
    from quantstore.run.probe_figures import Facts, Figure, figures
    from quantstore.run.runtime import version

    reply.progress({"facts": {"onnxruntime_version": version()}})
    asked = [Probed.named(scheme, target) for scheme, target in request["asked"]]
    for figure in figures(Path(request["path"]), asked, fold=request["fold"]):
        key = {Facts: "facts", Figure: "figure"}.get(type(figure), "finding")
        reply.progress({key: dataclasses.asdict(figure)})


# So many new objects make Python look for cycles; by default 700 do. A graph has tens of thousands,
# which live as long as its model is probed, and what is looked at is all that was imported as well.
OBJECTS_PER_COLLECTION = 50_000

if __name__ == "__main__":
    gc.set_threshold(OBJECTS_PER_COLLECTION)
    keep_freed()
    serve(answer)
