"""A process that is killed while it changes a store; ``make kill`` does it by the hundred."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")
def test_whatever_moment_a_process_is_killed_at_the_store_is_whole():
    # In a process of its own, which has no threads: it forks.
    done = subprocess.run(
        [sys.executable, ROOT / "bench" / "kill.py", "--kills", "4", "--seed", "5"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 kills, 0 failures" in done.stdout
