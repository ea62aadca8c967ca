"""An audit in a process of its own: the side that answers.

A process can be cancelled, and a runtime that crashes takes down nothing else. :func:`request` is
what it is asked, its result ``{"audit": ..., "peak_bytes": ...}``.
"""

import dataclasses
from pathlib import Path
from typing import Any

from quantstore.process.memory import peak_bytes
from quantstore.process.serve import Reply, serve


def request(float_path: Path, int8_path: Path, inputs: str, choices: Any) -> dict[str, Any]:
    """What :func:`answer` reads."""
    return {
        "float_path": str(float_path),
        "int8_path": str(int8_path),
        "inputs": inputs,
        "choices": dataclasses.asdict(choices),
    }


def answer(request: dict[str, Any], reply: Reply) -> dict[str, Any]:
    """Audit the int8 file, say how far it is, and give everything that was found."""
    from quantstore.auditing.audit import audit
    from quantstore.auditing.choices import AuditChoices
    from quantstore.run.choices import Progress
    from quantstore.run.inputs import preprocessing_of

    choices = request["choices"]
    choices["preprocess"] = preprocessing_of(choices["preprocess"])

    def report(progress: Progress) -> None:
        reply.stage_progress(progress.stage, dataclasses.asdict(progress))

    answered = audit(
        Path(request["float_path"]),
        Path(request["int8_path"]),
        request["inputs"],
        AuditChoices(**choices),
        report,
    )
    return {"audit": answered.to_json(), "peak_bytes": peak_bytes()}


if __name__ == "__main__":
    serve(answer)
