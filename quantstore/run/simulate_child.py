"""A simulation in a process of its own: the side that answers.

A process can be cancelled, and a runtime that crashes takes down nothing else. :func:`request` is
what it is asked, its result ``{"simulation": ..., "peak_bytes": ...}``.
"""

import dataclasses
from pathlib import Path
from typing import Any

from quantstore.process.memory import peak_bytes
from quantstore.process.serve import Reply, serve


def request(path: Path, inputs: str, choices: Any) -> dict[str, Any]:
    """What :func:`answer` reads."""
    return {"path": str(path), "inputs": inputs, "choices": dataclasses.asdict(choices)}


def answer(request: dict[str, Any], reply: Reply) -> dict[str, Any]:
    """Run the model, say how far it is, and give everything that was measured."""
    from quantstore.run.choices import Choices, Progress
    from quantstore.run.inputs import preprocessing_of
    from quantstore.run.simulate import simulate

    choices = request["choices"]
    choices["preprocess"] = preprocessing_of(choices["preprocess"])
    choices["exclude"] = tuple(choices["exclude"])

    def report(progress: Progress) -> None:
        reply.stage_progress(progress.stage, dataclasses.asdict(progress))

    simulation = simulate(Path(request["path"]), request["inputs"], Choices(**choices), report)
    return {"simulation": simulation.to_json(), "peak_bytes": peak_bytes()}


if __name__ == "__main__":
    serve(answer)
