"""The probe's child process: the side that answers.

A request is ``{"path": ..., "fold": ..., "asked": [[scheme, target], ...]}``; progress is any
number of ``{"facts": {...}}``, ``{"figure": {...}}`` and ``{"finding": {...}}``; the result is
None.
"""

import dataclasses
import gc
from pathlib import Path
from typing import Any

from quantstore.process.memory import collect_rarely, keep_freed
from quantstore.process.serve import Reply, serve


def answer(request: dict[str, Any], reply: Reply) -> None:
    """Run the model on noise, and give each figure as soon as it is there."""
    # What the model before has left, its weights among it.
    gc.collect(0)
    from quantstore.run.plan import Probed
    from quantstore.run.probe_figures import Facts, Figure, figures
    from quantstore.run.runtime import version

    reply.progress({"facts": {"onnxruntime_version": version()}})
    asked = [Probed.named(scheme, target) for scheme, target in request["asked"]]
    for figure in figures(Path(request["path"]), asked, fold=request["fold"]):
        key = {Facts: "facts", Figure: "figure"}.get(type(figure), "finding")
        reply.progress({key: dataclasses.asdict(figure)})


if __name__ == "__main__":
    collect_rarely()
    keep_freed()
    serve(answer)
