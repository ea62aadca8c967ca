"""What a model is fed: images and arrays, and what is said where they do not fit."""

import numpy as np
import pytest
from PIL import Image

from quantstore.errors import InputsError
from quantstore.run import inputs
from quantstore.run.inputs import (
    ARE_NO_ARRAYS,
    NO_FILE_OR_FOLDER,
    PRESETS,
    ModelInput,
    Preprocessing,
    read_samples,
    size_left_open,
)

FLOAT = np.dtype(np.float32)
NCHW = ModelInput("image", (1, 3, 4, 6), FLOAT)
NHWC = ModelInput("image", (1, 4, 6, 3), FLOAT)


def pixels(seed=0, size=(4, 6)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Three images of exactly the size wanted, so that nothing is resized."""
    path = tmp_path / "photos"
    path.mkdir()
    for seed in range(3):
        Image.fromarray(pixels(seed)).save(path / f"{seed}.png")
    return path


def arrays(tmp_path, name="x.npz", **content):
    np.savez(tmp_path / name, **content)
    return str(tmp_path / name)


# Images


def test_each_image_of_a_folder_is_one_sample_in_the_order_of_names(folder):
    samples = read_samples(str(folder), [NCHW], preprocess="raw-rgb")
    assert len(samples) == 3
    for seed in range(3):
        expected = pixels(seed).transpose(2, 0, 1)[np.newaxis].astype(np.float32)
        np.testing.assert_array_equal(samples[seed]["image"], expected)
    assert samples.description == "3 images from photos/, raw-rgb"
    assert samples.shapes == "image 1x3x4x6"


@pytest.mark.parametrize(
    ("name", "formula"),
    {
        "zero-one": lambda rgb: rgb / 255,
        "imagenet": lambda rgb: (rgb / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
        "minus-one-one": lambda rgb: (rgb - 127.5) / 127.5,
        "ultraface": lambda rgb: (rgb - 127) / 128,
        "mmdet-bgr": lambda rgb: (
            (rgb[..., ::-1] - [103.53, 116.28, 123.675]) / [57.375, 57.12, 58.395]
        ),
        "rtmdet": lambda rgb: (
            (rgb[..., ::-1] - [103.53, 116.28, 123.675]) / [57.375, 57.12, 58.395]
        ),
        "caffe-bgr": lambda rgb: rgb[..., ::-1] - [104, 117, 123],
        "paddle-bgr": lambda rgb: (
            (rgb[..., ::-1] / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        ),
        "raw-bgr": lambda rgb: rgb[..., ::-1],
    }.items(),
)
@pytest.mark.parametrize("layout", [NCHW, NHWC], ids=["nchw", "nhwc"])
def test_a_preset_is_the_formula_its_users_write_down(name, formula, layout, folder):
    found = read_samples(str(folder), [layout], preprocess=name)[0]["image"][0]
    expected = formula(pixels(0).astype(np.float64))
    if layout is NCHW:
        expected = expected.transpose(2, 0, 1)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_options_of_ones_own_replace_what_a_preset_says(folder):
    how = inputs.changed(PRESETS["zero-one"], color="bgr", mean=(0.5,), std=(0.25,))
    found = read_samples(str(folder), [NHWC], preprocess=how)[0]["image"][0]
    np.testing.assert_allclose(found, (pixels(0)[..., ::-1] / 255 - 0.5) / 0.25, rtol=1e-5)


def test_an_image_is_stretched_to_the_size_of_the_input(tmp_path):
    Image.new("RGB", (30, 10), (255, 0, 0)).save(tmp_path / "red.png")
    found = read_samples(str(tmp_path / "red.png"), [NCHW], preprocess="zero-one")[0]["image"]
    np.testing.assert_array_equal(found[0, :, 0, 0], [1, 0, 0])
    assert found.shape == (1, 3, 4, 6)


def test_a_size_left_open_is_320_unless_somebody_says_another(folder):
    wanted = ModelInput("image", (None, 3, None, None), FLOAT)
    samples = read_samples(str(folder), [wanted], count=1)
    assert samples[0]["image"].shape == (1, 3, 320, 320)
    assert size_left_open("image", 320, 320) in " ".join(samples.notes)
    how = Preprocessing(size=(8, 16))
    assert read_samples(str(folder), [wanted], preprocess=how)[0]["image"].shape == (1, 3, 8, 16)


def test_a_size_that_the_model_does_not_have_is_refused(folder):
    with pytest.raises(InputsError, match=r"has height 4 .* not 8"):
        read_samples(str(folder), [NCHW], preprocess=Preprocessing(size=(8, 6)))


def test_one_channel_takes_grey_images(folder):
    wanted = ModelInput("image", (1, 1, 4, 6), FLOAT)
    found = read_samples(str(folder), [wanted])[0]["image"]
    luminance = pixels(0) @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(found[0, 0], luminance / 255, atol=1.01 / 255)


def test_an_input_of_bytes_takes_pixels_as_they_are(folder):
    wanted = ModelInput("image", (1, 4, 6, 3), np.dtype(np.uint8))
    np.testing.assert_array_equal(read_samples(str(folder), [wanted])[0]["image"][0], pixels(0))


def test_a_fixed_batch_takes_as_many_images_at_a_time(folder):
    samples = read_samples(str(folder), [ModelInput("image", (2, 3, 4, 6), FLOAT)])
    assert len(samples) == 1
    assert samples[0]["image"].shape == (2, 3, 4, 6)


def test_of_many_images_some_are_taken_at_even_distances(folder):
    samples = read_samples(str(folder), [NCHW], count=2, preprocess="raw-rgb")
    assert len(samples) == 2
    np.testing.assert_array_equal(samples[1]["image"][0], pixels(1).transpose(2, 0, 1))


def test_an_image_that_cannot_be_read_is_skipped_and_said_so(folder):
    (folder / "1.png").write_bytes(b"\x89PNG broken")
    samples = read_samples(str(folder), [NCHW])
    assert len(samples) == 2
    assert any("skipped 1 of 3 images: 1.png" in note for note in samples.notes)


def test_a_folder_where_none_can_be_read_is_refused(folder):
    for file in folder.iterdir():
        file.write_bytes(b"no image")
    with pytest.raises(InputsError, match=r"no image in .* can be read: 0\.png is not a readable"):
        read_samples(str(folder), [NCHW])


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(InputsError, match="has no images"):
        read_samples(str(tmp_path), [NCHW])


def test_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputsError, match=NO_FILE_OR_FOLDER):
        read_samples(str(tmp_path / "gone"), [NCHW])
    with pytest.raises(InputsError, match="no preprocessing is named 'imgnet'"):
        read_samples(str(tmp_path), [NCHW], preprocess="imgnet")


def test_images_do_not_fill_a_model_with_other_inputs(folder):
    wanted = [NCHW, ModelInput("scale", (1, 2), FLOAT)]
    with pytest.raises(InputsError, match="images fill input 'image', but scale would be missing"):
        read_samples(str(folder), wanted)
    with pytest.raises(InputsError, match="its inputs are tokens 1x8"):
        read_samples(str(folder), [ModelInput("tokens", (1, 8), FLOAT)])


@pytest.mark.parametrize("wrong", [{"mean": (1.0, 2.0)}, {"std": (0.0,)}, {"scale": 0.0}])
def test_numbers_that_make_no_sense_are_refused(wrong):
    with pytest.raises(InputsError):
        Preprocessing(**wrong)


# Arrays


def test_arrays_go_to_inputs_by_name_and_the_first_axis_counts_samples(tmp_path):
    wanted = [ModelInput("a", (None, 2), FLOAT), ModelInput("b", (1, 3), np.dtype(np.int64))]
    a, b = np.arange(8.0).reshape(4, 2), np.arange(12).reshape(4, 3)
    samples = read_samples(arrays(tmp_path, a=a, b=b), wanted)
    assert len(samples) == 4
    np.testing.assert_array_equal(samples[2]["a"], np.float32([[4, 5]]))
    np.testing.assert_array_equal(samples[2]["b"], [[6, 7, 8]])
    assert samples[2]["a"].dtype == np.float32


def test_an_array_for_one_run_is_fed_to_every_run(tmp_path):
    wanted = [ModelInput("x", (1, 2), FLOAT), ModelInput("state", (2, 1, 4), FLOAT)]
    state = np.ones((2, 1, 4), np.float32)
    samples = read_samples(arrays(tmp_path, x=np.zeros((3, 2)), state=state), wanted)
    assert len(samples) == 3
    np.testing.assert_array_equal(samples[2]["state"], state)


def test_a_number_is_an_array_too(tmp_path):
    wanted = [ModelInput("x", (1, 2), FLOAT), ModelInput("sr", (), np.dtype(np.int64))]
    samples = read_samples(arrays(tmp_path, x=np.zeros((3, 2)), sr=16000), wanted)
    assert samples[1]["sr"] == 16000
    assert samples[1]["sr"].shape == ()


def test_one_array_for_one_input_needs_no_name(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((2, 5)))
    wanted = [ModelInput("image", (None, 5), FLOAT)]
    assert len(read_samples(str(tmp_path / "x.npy"), wanted)) == 2
    assert len(read_samples(arrays(tmp_path, anything=np.ones((2, 5))), wanted)) == 2


def test_labels_are_kept_apart_and_follow_the_samples_that_are_taken(tmp_path):
    path = arrays(tmp_path, x=np.arange(6.0).reshape(6, 1), labels=np.arange(6))
    samples = read_samples(path, [ModelInput("x", (None, 1), FLOAT)], count=3)
    np.testing.assert_array_equal(samples.labels, [0, 2, 4])
    assert samples[1]["x"] == 2


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"x": np.zeros((4, 5))}, "input 'x' expects shape \\?x6, but x.npz has 4x5"),
        ({"y": np.zeros((4, 6)), "z": np.ones(1)}, "needs input 'x' .*; x.npz has 'y', 'z'"),
        ({"x": np.full((4, 6), np.nan)}, "contains NaN or infinity"),
        ({"x": np.array([["a"] * 6])}, "has type <U1; it must be numeric"),
        ({"x": np.zeros((0, 6))}, "expects shape"),
    ],
    ids=["shape", "missing", "nan", "text", "empty"],
)
def test_arrays_that_do_not_fit_are_refused_in_a_sentence(tmp_path, content, sentence):
    with pytest.raises(InputsError, match=sentence):
        read_samples(arrays(tmp_path, **content), [ModelInput("x", (None, 6), FLOAT)])


def test_different_numbers_of_samples_are_refused(tmp_path):
    wanted = [ModelInput("a", (1, 2), FLOAT), ModelInput("b", (1, 2), FLOAT)]
    with pytest.raises(InputsError, match="different numbers of samples: a has 3, b has 2"):
        read_samples(arrays(tmp_path, a=np.zeros((3, 2)), b=np.zeros((2, 2))), wanted)


def test_fractions_for_whole_numbers_are_refused(tmp_path):
    with pytest.raises(InputsError, match="expects int64, not float64"):
        read_samples(
            arrays(tmp_path, x=np.full((1, 2), 0.5)), [ModelInput("x", (1, 2), np.dtype(np.int64))]
        )


def test_a_file_that_is_no_array_is_refused(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"PK no")
    with pytest.raises(InputsError, match=ARE_NO_ARRAYS):
        read_samples(str(tmp_path / "x.npz"), [NCHW])
    np.save(tmp_path / "o.npy", np.array([{}], dtype=object))
    with pytest.raises(InputsError, match=ARE_NO_ARRAYS):
        read_samples(str(tmp_path / "o.npy"), [NCHW])
    (tmp_path / "x.txt").write_text("1")
    with pytest.raises(InputsError, match="not supported"):
        read_samples(str(tmp_path / "x.txt"), [NCHW])
