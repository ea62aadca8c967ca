"""What ``simulate`` passes on of what is chosen on the command line."""

import shutil

from quantstore import cli, store
from quantstore.pipeline.files import demo_paths


def test_a_target_and_a_goal_are_those_of_the_run(demo_store, tmp_path, capsys):
    path = shutil.copy(demo_store, tmp_path / "own.duckdb")
    file = next(path for path in demo_paths() if path.stem == "digits-rescaled")
    options = ["--target", "int8_channel_fused", "--samples", "4", "--goal", "20", "--no-drift"]
    assert cli.main(["--db", str(path), "simulate", str(file), "--inputs", "noise", *options]) == 0
    assert "in float for 20 dB" in capsys.readouterr().err
    with store.reading(path) as con:
        assert con.rows("select target, scheme, mode from simulations") == [
            ("int8_channel_fused", "int8_channel_symmetric", "both")
        ]
        assert con.value("select min(goal_db) from float_sets") == 20
