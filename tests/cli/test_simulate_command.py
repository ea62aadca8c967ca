"""What ``simulate`` passes on of what is chosen on the command line."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from quantstore import cli, store
from quantstore.pipeline.files import demo_paths


@pytest.mark.slow
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


@pytest.mark.parametrize(
    ("options", "picture_count"),
    [([], 3), pytest.param(["--no-pictures"], 0, marks=pytest.mark.slow)],
)
def test_what_int8_does_to_the_answers_is_said_and_kept(
    demo_store, tmp_path, capsys, options, picture_count
):
    path = shutil.copy(demo_store, tmp_path / "own.duckdb")
    images = tmp_path / "images"
    images.mkdir()
    random = np.random.default_rng(0)
    for number in range(6):
        Image.fromarray(random.integers(0, 256, (8, 8), np.uint8)).save(images / f"{number}.png")
    file = next(path for path in demo_paths() if path.stem == "digits-plain")
    arguments = ["simulate", str(file), "--inputs", str(images), "--format", "json", *options]
    assert cli.main(["--db", str(path), *arguments]) == 0
    output = capsys.readouterr()
    assert "The top class" in output.err
    assert "The top class" in json.loads(output.out)[0]["answers"]
    with store.reading(path) as con:
        assert con.rows(
            "select form, count(*), count(picture), bool_and(input_name like '%.png')"
            " from simulation_answers group by form"
        ) == [("classes", 3, picture_count, True)]
