"""GGUF files: which layers they hold, and what their weights are once they are dequantized.

Read top to bottom, this is what ``quantstore ingest model.gguf`` promises. The package ``gguf``
writes the files, and is the referee of what its blocks stand for.
"""

import hashlib
import os
import struct
import time

import gguf
import numpy as np
import pytest

from quantstore import graph
from quantstore.errors import ModelFileError
from quantstore.graph.weights.gguf import NOT_DEQUANTIZED
from quantstore.pipeline.files import find_files, name_of
from quantstore.pipeline.measure_file import measure_file
from tests.support.graphs import gaussian
from tests.support.refusals import refusal
from tests.support.weight_files import save_gguf, save_gguf_parts, save_tensors


@pytest.fixture
def read(tmp_path):
    """The layers of tensors by name, and what is unread."""

    def run(tensors, facts=()):
        file = graph.open_any(save_gguf(tmp_path / "m.gguf", tensors, facts))
        survey = graph.survey(file)
        layers = [graph.read_or_reason(file, site) for site in survey.sites]
        return {layer.name: layer for layer in layers}, survey.unread

    return run


# Which tensors are layers


@pytest.mark.parametrize(
    ("name", "shape", "op_type", "family"),
    [
        ("blk.0.attn_q.weight", (5, 8), "Gemm", "linear"),
        ("output.weight", (5, 8), "Gemm", "linear"),
        ("token_embd.weight", (5, 8), "Gather", "embedding"),
        ("v.patch_embd.weight", (4, 3, 2, 2), "Conv", "conv"),
    ],
)
def test_rank_and_name_tell_what_a_tensor_is(read, name, shape, op_type, family):
    weights = gaussian(*shape)
    layers, unread = read({name: weights, "output_norm.weight": gaussian(8)})
    (layer,) = layers.values()
    assert unread == ()
    assert (layer.op_type, layer.op_family, layer.shape) == (op_type, family, shape)
    assert layer.name == name.removesuffix(".weight")
    np.testing.assert_array_equal(layer.weights, weights.reshape(shape[0], -1))


def test_the_experts_of_a_mixture_are_one_layer(read):
    weights = gaussian(3, 4, 8)
    layers, _ = read({"blk.0.ffn_up_exps.weight": weights})
    assert layers["blk.0.ffn_up_exps"].shape == (12, 8)
    np.testing.assert_array_equal(layers["blk.0.ffn_up_exps"].weights, weights.reshape(12, 8))


def test_what_no_rule_knows_is_said(read):
    _, unread = read({"blk.0.attn_q.weight": gaussian(5, 8), "blk.0.ssm_a": gaussian(4, 8)})
    assert [operand.name for operand in unread] == ["blk.0.ssm_a"]


# What the stored values are worth


@pytest.mark.parametrize(
    "type_name", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ1_0", "TQ2_0", "BF16", "F16"]
)
def test_blocks_of_codes_come_back_as_what_the_package_says(tmp_path, read, type_name):
    weights = gaussian(6, 512)
    layers, _ = read({"blk.0.ffn_up.weight": (weights, type_name)})
    layer = layers["blk.0.ffn_up"]
    (stored,) = gguf.GGUFReader(tmp_path / "m.gguf").tensors
    expected = gguf.dequantize(stored.data, stored.tensor_type).reshape(6, 512)
    np.testing.assert_array_equal(layer.weights, expected)
    if type_name in ("BF16", "F16"):
        assert not layer.already_quantized
    else:
        block, _ = gguf.GGML_QUANT_SIZES[stored.tensor_type]
        assert layer.already_quantized
        assert layer.stored_scheme == f"{type_name.lower()} per block of {block}"
        assert layer.weight_dtype == type_name.lower()


@pytest.mark.parametrize("type_name", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"])
def test_k_quants_are_dequantized(tmp_path, type_name):
    """The package does not write them: any bytes are codes, with scales of 1."""
    kind = gguf.GGMLQuantizationType[type_name]
    block, length = gguf.GGML_QUANT_SIZES[kind]
    raw = np.random.default_rng(0).integers(0, 100, (4, 2 * length), np.uint8)
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_tensor("blk.0.attn_k.weight", raw, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = graph.open_any(tmp_path / "m.gguf")
    (site,) = graph.find_sites(file)
    layer = graph.read_layer(file, site)
    assert layer.shape == (4, 2 * block)
    np.testing.assert_array_equal(layer.weights, gguf.dequantize(raw, kind))


def test_a_type_that_nobody_dequantizes_is_said(tmp_path):
    kind = gguf.GGMLQuantizationType.Q8_K
    _, length = gguf.GGML_QUANT_SIZES[kind]
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_tensor("blk.0.attn_k.weight", np.zeros((4, length), np.uint8), raw_dtype=kind)
    writer.add_tensor("blk.0.attn_v.weight", gaussian(4, 8))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    measured = measure_file(tmp_path / "m.gguf")
    assert len(measured.layers) == 1
    (finding,) = [finding for finding in measured.findings if finding.kind == "unread"]
    assert f"{NOT_DEQUANTIZED} Q8_K" in finding.message


def test_weights_that_are_no_numbers_are_counted(tmp_path):
    weights = gaussian(5, 8)
    weights[0, 0] = np.nan
    measured = measure_file(save_gguf(tmp_path / "m.gguf", {"a.weight": weights}))
    assert measured.layers[0].layer.nonfinite_count == 1


def test_a_network_has_the_same_layers_as_gguf_and_as_safetensors(tmp_path):
    tensors = {"a.weight": gaussian(6, 8), "b.weight": gaussian(3, 6, seed=1)}
    ours = measure_file(save_gguf(tmp_path / "m.gguf", tensors)).layers
    theirs = measure_file(save_tensors(tmp_path / "m.safetensors", tensors)).layers
    assert [layer.errors for layer in ours] == [layer.errors for layer in theirs]


# Several files

SPLIT = {f"blk.{number}.ffn_up.weight": gaussian(4, 8, seed=number) for number in range(5)}


@pytest.fixture
def parts(tmp_path):
    return save_gguf_parts(tmp_path, SPLIT)


@pytest.mark.parametrize("small_first_shard", [False, True])
def test_a_model_in_parts_is_what_its_first_part_stands_for(tmp_path, small_first_shard):
    parts = save_gguf_parts(tmp_path, SPLIT, small_first_shard=small_first_shard)
    assert len(parts) == 3 + small_first_shard
    file = graph.open_any(parts[0])
    layers = [graph.read_layer(file, site) for site in graph.find_sites(file)]
    assert [f"{layer.name}.weight" for layer in layers] == list(SPLIT)
    for layer in layers:
        np.testing.assert_array_equal(layer.weights, SPLIT[f"{layer.name}.weight"])
    contents = [part.read_bytes() for part in parts]
    assert file.sha256 == hashlib.sha256(b"".join(contents)).hexdigest()
    assert file.file_bytes == sum(map(len, contents))


def test_parts_that_change_are_noticed(parts):
    file = graph.open_any(parts[0])
    graph.require_unchanged(file)
    parts[1].write_bytes(parts[1].read_bytes())
    with pytest.raises(ModelFileError, match="changed"):
        graph.require_unchanged(file)


def test_of_parts_the_first_is_the_model_which_is_named_after_all(tmp_path, parts):
    assert find_files([str(tmp_path)]) == ([parts[0]], [])
    assert find_files([str(tmp_path / "*.gguf")]) == ([parts[0]], [])
    assert find_files(list(map(str, parts))) == ([parts[0]], [])
    assert find_files([str(parts[1])]) == ([parts[1]], [])
    assert name_of(parts[0]) == "net"
    assert graph.named_files(parts[0]) == [part.name for part in parts[1:]]


def test_parts_may_be_links_into_a_folder_beside_the_first_as_the_hub_keeps_them(tmp_path, parts):
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for part in parts:
        (snapshot / part.name).symlink_to(part)
    assert len(graph.find_sites(graph.open_any(snapshot / parts[0].name))) == 5


def test_a_vocabulary_is_passed_over(tmp_path, read):
    words = [f"word {number}" for number in range(50_000)]
    facts = [
        ("add_token_list", words),
        ("add_token_types", [1] * len(words)),
        ("add_chat_template", "x" * 100_000),
        ("add_custom_alignment", 64),
    ]
    started = time.process_time()
    layers, _ = read({"a.weight": gaussian(6, 8), "b.weight": gaussian(6, 8, seed=1)}, facts)
    assert time.process_time() - started < 2
    np.testing.assert_array_equal(layers["b"].weights, gaussian(6, 8, seed=1))


# Damaged and malicious files


@pytest.fixture
def refused(tmp_path):
    def run(content):
        path = tmp_path / "m.gguf"
        path.write_bytes(content)
        return refusal(path)

    return run


def text(content):
    return struct.pack("<Q", len(content)) + content


def tensor(name=b"a.weight", dimensions=(8, 5), kind=0, offset=0):
    sizes = struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions)
    return text(name) + sizes + struct.pack("<IQ", kind, offset)


def written(*tensors, facts=(), length=160, version=3, tensor_count=None, fact_count=None):
    """A file of these tensors and facts, as bytes, however wrong."""
    head = b"GGUF" + struct.pack("<I", version)
    head += struct.pack(
        "<QQ",
        len(tensors) if tensor_count is None else tensor_count,
        len(facts) if fact_count is None else fact_count,
    )
    head += b"".join((*facts, *tensors))
    return head + bytes(-len(head) % 32) + bytes(length)


def test_a_sound_file_written_by_hand_is_read(tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(written(tensor()))
    assert measure_file(path).layers[0].layer.shape == (5, 8)


A_LIST = text(b"k") + struct.pack("<I", 9)
HOSTILE = {
    "shape larger than the file": (written(tensor(dimensions=(8, 6))), "beyond the end"),
    "huge shape": (written(tensor(dimensions=(2**63, 2**63))), "beyond the end"),
    "offset beyond the end": (written(tensor(offset=2**63)), "beyond the end"),
    "overlap": (written(tensor(), tensor(b"b.weight", offset=32), length=320), "overlaps"),
    "many dimensions": (written(tensor(dimensions=(1,) * 9)), "9 dimensions"),
    "billions of dimensions": (
        written(text(b"a") + struct.pack("<I", 2**32 - 1)), "4294967295 dimensions",
    ),
    "a row that is no block": (written(tensor(dimensions=(8, 5), kind=8)), "impossible"),
    "no dimensions": (written(tensor(dimensions=())), "impossible"),
    "unknown type": (written(tensor(kind=999)), "type 999"),
    "same name twice": (written(tensor(), tensor(offset=160), length=320), "same name"),
    "billions of tensors": (written(tensor(), tensor_count=2**63), "tensors"),
    "billions of facts": (written(tensor(), fact_count=2**63), "facts"),
    "a name of gigabytes": (written(struct.pack("<Q", 2**40)), "bytes"),
    "a fact of gigabytes": (
        written(facts=[text(b"k") + struct.pack("<IQ", 8, 2**40)]), "ends before",
    ),
    "an endless list": (written(facts=[A_LIST + struct.pack("<IQ", 0, 2**62)]), "members"),
    "a list of texts": (written(facts=[A_LIST + struct.pack("<IQ", 8, 10**6)]), "ends before"),
    "lists in lists": (written(facts=[A_LIST + struct.pack("<IQ", 9, 2)]), "unknown type 9"),
    "unknown fact": (written(facts=[text(b"k") + struct.pack("<I", 77)]), "unknown type 77"),
    "no alignment": (
        written(tensor(), facts=[text(b"general.alignment") + struct.pack("<II", 4, 0)]),
        "alignment",
    ),
    "huge alignment": (
        written(tensor(), facts=[text(b"general.alignment") + struct.pack("<IQ", 10, 2**60)]),
        "alignment",
    ),
    "one of several files": (
        written(tensor(), facts=[text(b"split.count") + struct.pack("<IH", 2, 3)]),
        "rename it to NAME-00001-of-00003.gguf",
    ),
    "one of billions of files": (
        written(tensor(), facts=[text(b"split.count") + struct.pack("<II", 4, 2**31 - 1)]),
        "part 1 of 2147483647",
    ),
    "version 1": (written(tensor(), version=1), "version 1"),
    "big-endian": (written(tensor(), version=3 << 24), "big-endian"),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_what_no_file_can_have(refused, what):
    content, said = HOSTILE[what]
    assert said in refused(content)


def split_facts(number, count, total):
    return [
        ("add_uint16", "split.no", number),
        ("add_uint16", "split.count", count),
        ("add_int32", "split.tensors.count", total),
    ]


def missing(folder, parts):
    parts[1].unlink()


def of_another_model(folder, parts):
    save_gguf(parts[1], {"z.weight": gaussian(4, 8)}, split_facts(1, 3, 7))


def with_another_number(folder, parts):
    parts[1].write_bytes(parts[2].read_bytes())


def with_a_tensor_of_another_part(folder, parts):
    name, *_ = SPLIT
    save_gguf(parts[2], {name: gaussian(4, 8)}, split_facts(2, 3, 5))


def with_too_few_tensors(folder, parts):
    save_gguf(parts[1], {"z.weight": gaussian(4, 8)}, split_facts(1, 3, 5))


def that_is_no_part(folder, parts):
    save_gguf(parts[1], {"z.weight": gaussian(4, 8)})


def that_is_cut_off(folder, parts):
    parts[1].write_bytes(parts[1].read_bytes()[:-1])


def that_is_no_gguf(folder, parts):
    parts[1].write_bytes(b"PK" + bytes(200))


def that_is_empty(folder, parts):
    parts[1].write_bytes(b"")


def that_is_a_folder(folder, parts):
    parts[1].unlink()
    parts[1].mkdir()


def that_leads_outside(folder, parts):
    elsewhere = folder.parent / f"{folder.name}-elsewhere.gguf"
    parts[1].rename(elsewhere)
    parts[1].symlink_to(elsewhere)


def that_is_a_circle(folder, parts):
    parts[1].unlink()
    parts[1].symlink_to(parts[1])


def that_is_a_pipe(folder, parts):
    if not hasattr(os, "mkfifo"):
        pytest.skip("the system has no named pipes")
    parts[1].unlink()
    os.mkfifo(parts[1])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (missing, "part net-00002-of-00003.gguf is missing"),
        (of_another_model, "part 2 of 3, of a model with 7 tensors, instead of"),
        (with_another_number, "it is part 3 of 3"),
        (with_a_tensor_of_another_part, "'blk.0.ffn_up.weight' is in two of its parts"),
        (with_too_few_tensors, "have 4 tensors instead of 5"),
        (that_is_no_part, "it is part 1 of 1"),
        (that_is_cut_off, "beyond the end of the file"),
        (that_is_no_gguf, "does not begin as one"),
        (that_is_empty, "00002-of-00003.gguf"),
        (that_is_a_folder, "00002-of-00003.gguf"),
        (that_leads_outside, "lies outside the model's folder"),
        (that_is_a_circle, "00002-of-00003.gguf"),
        (that_is_a_pipe, "not a regular file"),
    ],
)
def test_a_part(tmp_path, parts, damage, said):
    damage(tmp_path, parts)
    assert said in refusal(parts[0])


def test_another_part_than_the_first_is_no_model(parts):
    assert "ingest net-00001-of-00003.gguf, which stands for all" in refusal(parts[2])


def test_the_first_part_under_another_name_is_no_model(tmp_path, parts):
    for name in ("net.gguf", "net-00001-of-00002.gguf", "net-00002-of-00003.gguf"):
        other = tmp_path / "other" / name
        other.parent.mkdir(exist_ok=True)
        other.write_bytes(parts[0].read_bytes())
        assert "rename it to NAME-00001-of-00003.gguf" in refusal(other)
