"""What a child says on the way to its result."""

import io
import json

from quantstore.process import serve


def test_a_stage_is_told_at_once_and_then_no_more_often_than_somebody_reads(monkeypatch):
    now = 100.0
    monkeypatch.setattr(serve.time, "monotonic", lambda: now)
    output = io.BytesIO()
    reply = serve.Reply(output)
    steps = [(0.0, "reading", 1), (0.05, "reading", 2), (0.06, "running", 3), (0.17, "running", 4)]
    for seconds, stage, step in steps:
        now = 100.0 + seconds
        reply.stage_progress(stage, step)
    told = [json.loads(line)["progress"] for line in output.getvalue().splitlines()]
    assert told == [1, 3, 4]
