"""What holds for every format: how a file is stored, and what one may do to its reader.

A file ends in a stored model or in one sentence. What only one format has is tested in a file of
its own.
"""

import io
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from quantstore import graph, store
from quantstore.errors import ModelFileError
from quantstore.file_formats import GGUF, ONNX, SAFETENSORS, TENSORFLOW_LITE, FileFormat
from quantstore.pipeline.ingest import ingest_file
from tests.support.graphs import conv_model, gaussian, save
from tests.support.refusals import refusal
from tests.support.tflite_files import CONV, T, one_layer, quantized, saved
from tests.support.weight_files import (
    normalization,
    save_gguf,
    save_gguf_parts,
    save_parts,
    save_tensors,
)

TENSORS = {"0.weight": gaussian(6, 3, 2, 2), "fc.weight": gaussian(3, 64), **normalization("1", 6)}
MATRICES = {f"{name}.weight": gaussian(4, 64, seed=seed) for seed, name in enumerate("abc")}


@dataclass(frozen=True)
class Case:
    """A format, or a form of it.

    ``write``: a sound file into a folder, and which of its files may be damaged. ``package``: that
    reads it, if any. ``damaged_bytes``: where damage can matter; weights may be anything.
    """

    file_format: FileFormat
    write: Callable[[Path], Sequence[Path]]
    package: str = ""
    damaged_bytes: tuple[int, int | None] = (0, None)


def lite_file(folder):
    codes, scale = quantized(gaussian(4, 3, 3, 2), 0)
    network = one_layer(
        "CONV_2D",
        T(name="w", values=codes, scale=scale),
        data=(1, 6, 6, 2),
        result=(1, 4, 4, 4),
        options="Conv2DOptions",
        settings=CONV | {"FusedActivationFunction": 1},
        bias=gaussian(4, seed=1),
    )
    return [saved(folder / "m.tflite", network)]


def safetensors_files(folder):
    index = save_parts(folder, MATRICES)
    return [*sorted(folder.glob("*.safetensors")), index]


def gguf_file(folder):
    tensors = {**MATRICES, "d.weight": (gaussian(4, 64), "Q8_0")}
    return [save_gguf(folder / "m.gguf", tensors, [("add_token_list", ["a", "b"])])]


CASES = {
    "ONNX": Case(ONNX, lambda folder: [save(conv_model(), folder / "m.onnx")]),
    "TensorFlow Lite": Case(TENSORFLOW_LITE, lite_file, "tflite", (8, None)),
    "safetensors": Case(
        SAFETENSORS,
        lambda folder: [save_tensors(folder / "m.safetensors", TENSORS)],
        "safetensors",
        (0, 700),
    ),
    "safetensors in parts": Case(SAFETENSORS, safetensors_files, "safetensors", (0, 700)),
    "GGUF": Case(GGUF, gguf_file, "gguf", (4, 320)),
    "GGUF in parts": Case(
        GGUF, lambda folder: save_gguf_parts(folder, MATRICES)[::-1], "gguf", (4, 250)
    ),
}
every_format = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
every_other_format = pytest.mark.parametrize("case", list(CASES.values())[1:], ids=list(CASES)[1:])


@pytest.fixture
def files(tmp_path, case):
    """A sound model: what is damaged first, the file that stands for all last."""
    return case.write(tmp_path)


# The store, and what is not measured


@pytest.mark.slow
@every_other_format
def test_a_file_that_is_not_run_is_stored_with_every_target_untested_and_why(
    tmp_path, prober, case, files
):
    path = tmp_path / "s.duckdb"
    assert ingest_file(files[-1], path, prober=prober).outcome == "stored"
    assert ingest_file(files[-1], path, prober=prober).outcome == "already stored"
    with store.reading(path) as con:
        assert con.rows("select file_format from models") == [(case.file_format.name,)]
        failures = con.rows("select distinct failure from simulations")
        verdicts = con.rows("select distinct verdict from verdicts")
        kinds = {kind for (kind,) in con.rows("select kind from findings")}
        edges = con.rows("from graph_edges")
    assert failures == [(case.file_format.why_not_run,)]
    assert verdicts == [("untested",)]
    assert ("no graph" in kinds) == (not case.file_format.has_graph)
    assert (edges == []) == (not case.file_format.has_graph)


@every_other_format
def test_what_runs_a_network_refuses_the_file_by_its_format(case, files):
    if files[-1].suffix == ".json":
        pytest.skip("an index is a text, and no more is known of it")
    with pytest.raises(ModelFileError, match=case.file_format.name) as failure:
        graph.open_model(files[-1])
    assert case.file_format.why_not_run in failure.value.sentence


@every_other_format
def test_without_the_extra_the_file_is_refused_with_how_to_install_it(case, files, monkeypatch):
    monkeypatch.setitem(sys.modules, case.package, None)
    assert case.file_format.install in refusal(files[-1])
    assert f"pip install 'quantstore[{case.package}]'" == case.file_format.install


@pytest.mark.slow
def test_the_packages_of_other_formats_are_loaded_for_their_files_only(tmp_path):
    path = save(conv_model(), tmp_path / "m.onnx")
    program = (
        "import sys, pathlib\nfrom quantstore import cli, graph\n"
        f"graph.survey(graph.open_any(pathlib.Path({str(path)!r})))\n"
        "print([name for name in ('safetensors', 'gguf', 'tflite', 'flatbuffers')"
        " if name in sys.modules])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == ["[]"]


# Damaged and malicious files


@every_format
def test_a_file_that_ends_too_early(case, files):
    content = files[0].read_bytes()
    for length in (0, 1, 4, 8, 9, 12, 30, 60, len(content) // 2, len(content) * 9 // 10):
        files[0].write_bytes(content[:length])
        refusal(files[-1])


def a_zip():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", b"content")
    return stream.getvalue()


@every_format
@pytest.mark.parametrize(
    ("content", "named"),
    [
        (pickle.dumps({"weight": [1.0]}, protocol=2), "pickle"),
        (a_zip(), "PyTorch file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 1\n", "git lfs pull"),
        (b"", "the file is empty"),
    ],
    ids=["a pickle", "a zip of PyTorch", "a pointer of Git LFS", "nothing"],
)
def test_a_file_of_another_kind_is_called_by_its_name(case, files, content, named):
    files[-1].write_bytes(content)
    assert named in refusal(files[-1])


@every_format
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_is_not_waited_for(case, files):
    for path in (files[0], files[-1]):
        path.unlink()
        os.mkfifo(path)
        assert "not a regular file" in refusal(files[-1])


@every_format
def test_a_folder_of_that_name_is_no_model(case, files):
    files[-1].unlink()
    files[-1].mkdir()
    assert "is a folder" in refusal(files[-1])


@every_format
@pytest.mark.parametrize(
    "seeds", [range(40), pytest.param(range(40, 2_000), marks=pytest.mark.slow)]
)
def test_a_file_with_any_damage_is_read_or_refused_in_a_sentence(case, files, seeds):
    whole = files[0].read_bytes()
    places = range(len(whole))[slice(*case.damaged_bytes)]
    outcomes = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        content = bytearray(whole)
        for _ in range(int(rng.integers(1, 5))):
            content[int(rng.choice(places))] = int(
                rng.choice([0, 1, 4, 8, 34, 48, 57, 91, 123, 127, 128, 255, rng.integers(256)])
            )
        files[0].write_bytes(content)
        try:
            file = graph.open_any(files[-1])
            sites = graph.find_sites(file)
            for site in sites:
                graph.read_or_reason(file, site)
            graph.flow_of(file, sites)
            graph.find_pairs(file, sites, fold=True)
            outcomes.append("read")
        except ModelFileError as error:
            outcomes.append(error.sentence)
    assert 0 < outcomes.count("read") < len(outcomes)
    assert [outcome for outcome in outcomes if not outcome.isprintable()] == []
