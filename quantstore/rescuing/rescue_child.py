"""A rescue in a process of its own: the side that answers.

A process can be cancelled, and a runtime that crashes takes down nothing else. :func:`request` is
what it is asked, its result ``{"rescue": ..., "peak_bytes": ...}``.
"""

import dataclasses
import errno
import time
from pathlib import Path
from typing import Any

from quantstore.errors import RunError
from quantstore.process.memory import peak_bytes
from quantstore.process.serve import Reply, serve


def request(path: Path, inputs: str, choices: Any) -> dict[str, Any]:
    """What :func:`answer` reads."""
    return {"path": str(path), "inputs": inputs, "choices": dataclasses.asdict(choices)}


def answer(request: dict[str, Any], reply: Reply) -> dict[str, Any]:
    """Rescue the model, say how far it is, and give everything that was found."""
    from quantstore.rescuing.choices import RescueChoices
    from quantstore.rescuing.rescue import rescue
    from quantstore.run.choices import Progress
    from quantstore.run.inputs import preprocessing_of

    choices = request["choices"]
    choices["preprocess"] = preprocessing_of(choices["preprocess"])
    choices["allow"] = tuple(choices["allow"])
    budget_seconds = choices["budget_seconds"]
    started = time.process_time()

    def report(progress: Progress) -> None:
        budget_left_s = max(0.0, budget_seconds - (time.process_time() - started))
        reply.stage_progress(
            progress.stage, dataclasses.asdict(progress) | {"budget_left_s": budget_left_s}
        )

    try:
        answered = rescue(
            Path(request["path"]), request["inputs"], RescueChoices(**choices), report
        )
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise RunError(
            "the disk is full", "free some room there, or choose another folder for the files"
        ) from error
    return {"rescue": answered.to_json(), "peak_bytes": peak_bytes()}


if __name__ == "__main__":
    serve(answer)
