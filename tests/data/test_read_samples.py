"""read_samples: good data comes through exactly, bad data is refused and costs nothing."""

import hashlib
import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from scripts.case.read_case import read_case
from scripts.data.samples import Samples
from scripts.files import versions
from tests.toy_case import INPUTS, LABELS, TOML, Toy


def batches(toy: Toy, size: int = 100) -> dict[str, NDArray[Any]]:
    """All samples, through the code that every later step uses."""
    samples = Samples(read_case(toy.toml), toy.samples)
    parts = list(samples.batches(size))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def labels(toy: Toy) -> list[int]:
    stored = np.load(toy.results / "labels.npy")
    assert (stored.dtype, stored.ndim) == (np.uint8, 1)
    return stored.tolist()


def accepted(toy: Toy, count: int, positives: int) -> None:
    result = toy.read()
    assert result.exit_code == 0, result.output
    assert result.output == f"toy: {count} samples, {positives} positive\n"


# ---- arrays --------------------------------------------------------------------------------------


def test_the_result_names_and_hashes_all_that_it_was_made_from(toy: Toy) -> None:
    accepted(toy, 6, 3)
    files = [toy.toml, toy.folder / "inputs.npy", toy.folder / "labels.npy"]
    assert json.loads(toy.samples.read_text()) == {
        "step": "samples",
        "samples": 6,
        "positives": 3,
        "inputs": {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files},
        "labels": "results/toy/labels.npy",
        "arrays": {"x": "data/toy/inputs.npy"},
        "versions": versions("numpy"),
    }
    assert labels(toy) == LABELS.tolist()
    assert {path.name for path in toy.results.iterdir()} == {"samples.json", "labels.npy"}


def test_the_data_itself_is_left_as_it_is(toy: Toy) -> None:
    before = {path: path.read_bytes() for path in toy.folder.iterdir()}
    accepted(toy, 6, 3)
    assert {path: path.read_bytes() for path in toy.folder.iterdir()} == before


@pytest.mark.parametrize("size", [1, 4, 6, 100])
def test_batches_hold_every_sample_once_and_in_order(read_toy: Toy, size: int) -> None:
    np.testing.assert_array_equal(batches(read_toy, size)["x"], INPUTS)


def test_a_trial_batch_repeats_samples_where_there_are_fewer(read_toy: Toy) -> None:
    samples = Samples(read_case(read_toy.toml), read_toy.samples)
    np.testing.assert_array_equal(samples.some(3)["x"], INPUTS[[0, 2, 5]])
    np.testing.assert_array_equal(samples.some(8)["x"], INPUTS[[0, 1, 2, 3, 4, 5, 0, 1]])


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", "int32", "int64", "bool"])
def test_every_dtype_comes_through_as_it_is(toy: Toy, dtype: str) -> None:
    array = np.array([[0, 1], [1, 100], [7, 0], [1, 1], [3, 2], [2, 3]]).astype(dtype)
    toy.change("float32", dtype)
    toy.save("inputs.npy", array)
    accepted(toy, 6, 3)
    found = batches(toy)["x"]
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


def test_a_sample_may_be_a_single_number(toy: Toy) -> None:
    toy.change("shape = [2]", "shape = []")
    toy.save("inputs.npy", INPUTS[:, 0])
    accepted(toy, 6, 3)
    np.testing.assert_array_equal(batches(toy)["x"], INPUTS[:, 0])


@pytest.mark.parametrize(
    "stored",
    [
        LABELS.astype(bool),
        LABELS.astype(np.int64),
        LABELS.astype(">i4"),
        LABELS.astype(np.float32),
        LABELS.astype(np.float64)[:, None],
        LABELS[:, None],
        LABELS.astype(str),
    ],
    ids=["bool", "int64", "big-endian", "whole floats", "column of floats", "column", "text"],
)
def test_labels_of_every_kind_are_read(toy: Toy, stored: NDArray[Any]) -> None:
    toy.save("labels.npy", stored)
    accepted(toy, 6, 3)
    assert labels(toy) == LABELS.tolist()


@pytest.mark.parametrize(
    ("keys", "stored"),
    [
        ("positive = 0", 1 - LABELS),
        ("positive = 2\nnegative = 1", LABELS + 1),
        ("positive = 1\nnegative = -1", np.where(LABELS == 1, 1, -1)),
        ('positive = "cat"', np.where(LABELS == 1, "cat", "dog")),
        ('positive = "cat"\nnegative = "dog"', np.where(LABELS == 1, "cat", "dog")),
    ],
)
def test_the_positive_label_is_the_one_that_case_toml_names(
    toy: Toy, keys: str, stored: NDArray[Any]
) -> None:
    toy.change("positive = 1", keys)
    toy.save("labels.npy", stored)
    accepted(toy, 6, 3)
    assert labels(toy) == LABELS.tolist()


def test_classes_of_a_multiclass_head_are_one_against_the_rest(toy: Toy) -> None:
    toy.change('"logit"', '"multiclass"\npositive_class = 2')
    toy.change("positive = 1", "positive = 2")
    toy.save("labels.npy", np.array([0, 2, 1, 2, 3, 0]))
    accepted(toy, 6, 2)
    assert labels(toy) == [0, 1, 0, 1, 0, 0]


NAN = INPUTS.copy()
NAN[4, 1] = np.nan
INFINITE = INPUTS.copy()
INFINITE[2] = -np.inf


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        (INPUTS[:5], ["5 samples", "6 labels"]),
        (INPUTS.astype(np.float64), ["dtype float64", "declares float32", "'x'"]),
        (INPUTS.astype(">f4"), [">f4", "declares float32"]),
        (INPUTS[:, :1], ["(1,)", "declares (2,)", "'x'"]),
        (INPUTS[:, :, None], ["(2, 1)", "declares (2,)"]),
        (INPUTS.ravel(), ["shape ()", "declares (2,)"]),
        (np.float32(3), ["shape"]),
        (np.asfortranarray(INPUTS), ["Fortran order", "ascontiguousarray"]),
        (NAN, ["NaN or infinity", "first in sample 4"]),
        (INFINITE, ["NaN or infinity", "first in sample 2"]),
        (INPUTS[:0], ["0 samples", "6 labels"]),
        (np.array([{}] * 6), ["not a .npy array that can be used", "without objects"]),
    ],
)
def test_bad_inputs_are_refused(read_toy: Toy, stored: Any, words: list[str]) -> None:
    read_toy.save("inputs.npy", stored)
    read_toy.refuses(read_toy.read, read_toy.folder / "inputs.npy", *words)


def test_a_nan_is_found_beyond_the_first_piece_that_is_looked_at(
    read_toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scripts.data.read_samples.CHUNK_BYTES", 3 * INPUTS[0].nbytes)
    read_toy.save("inputs.npy", NAN)
    read_toy.refuses(read_toy.read, "first in sample 4")


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        (LABELS[:4], ["6 samples", "4 labels"]),
        (np.zeros(6, int), ["positive label is 1", "labels are 0"]),
        (np.ones(6, int), ["all 6 labels are 1", "other one"]),
        (np.array([0, 1, 2, 0, 1, 0]), ["0, 1, 2", "'logit'", "positive = 1", "negative = 0"]),
        (np.array([1, 2, 2, 1, 1, 1]), ["1, 2", "negative = 0"]),
        (np.array([3, 4, 3, 4, 3, 4]), ["positive label is 1", "labels are 3, 4"]),
        (np.arange(2, 15), ["positive label is 1", "2, 3, 4, 5, 6, 7, 8, 9, ..."]),
        (np.array([0, 1, 0.25, 1, 1, 0]), ["no whole numbers", "0.25"]),
        (np.array([0, 1, np.nan, 1, 1, 0]), ["no whole numbers", "nan"]),
        (np.array([0, 1, np.inf, 1, 1, 0]), ["no whole numbers", "inf"]),
        (np.eye(6), ["shape (6, 6)", "labels are (n,)"]),
        (np.array(1), ["shape ()", "labels are (n,)"]),
        (LABELS.astype(complex), ["complex128", "uint8"]),
        (LABELS.astype("S1"), ["|S1", "uint8"]),
        (LABELS[:0], ["empty"]),
    ],
)
def test_bad_labels_are_refused(read_toy: Toy, stored: Any, words: list[str]) -> None:
    read_toy.save("labels.npy", stored)
    text = read_toy.refuses(read_toy.read, *words)
    assert "data/toy/labels.npy" in text or "data/toy/case.toml" in text or "inputs.npy" in text


def test_an_infinite_label_is_not_taken_for_a_class(read_toy: Toy) -> None:
    """A multiclass head admits any other label, so nothing later would notice."""
    read_toy.change('"logit"', '"multiclass"\npositive_class = 1')
    read_toy.save("labels.npy", np.array([0, 1, np.inf, 1, 1, 0]))
    read_toy.refuses(read_toy.read, read_toy.folder / "labels.npy", "inf")


@pytest.mark.parametrize(
    ("keys", "stored", "words"),
    [
        ('positive = "cat"', np.where(LABELS == 1, "dog", "cow"), ["'cat'", "'cow', 'dog'"]),
        ('positive = "cat"', np.array(["cat", "cow", "dog"] * 2), ["'cat', 'cow', 'dog'"]),
        ('positive = "1"', LABELS, ["positive label is '1'", "labels are 0, 1"]),
        ("positive = 2", LABELS + 1, ["1, 2", "negative"]),
    ],
)
def test_labels_that_case_toml_does_not_explain(
    read_toy: Toy, keys: str, stored: NDArray[Any], words: list[str]
) -> None:
    read_toy.change("positive = 1", keys)
    read_toy.save("labels.npy", stored)
    read_toy.refuses(read_toy.read, read_toy.toml, *words)


def test_no_sample_at_all_is_refused(read_toy: Toy) -> None:
    read_toy.save("inputs.npy", INPUTS[:0])
    read_toy.save("labels.npy", LABELS[:0])
    read_toy.refuses(read_toy.read, read_toy.toml, "empty")


@pytest.mark.parametrize("name", ["inputs.npy", "labels.npy"])
def test_a_missing_file_is_named(read_toy: Toy, name: str) -> None:
    (read_toy.folder / name).unlink()
    read_toy.refuses(read_toy.read, f"{read_toy.folder / name} does not exist")


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def text_instead(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\n")


def npz_instead(path: Path) -> None:
    with open(path, "wb") as file:
        np.savez(file, x=INPUTS)


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("name", ["inputs.npy", "labels.npy"])
@pytest.mark.parametrize("damage", [truncated, emptied, text_instead, npz_instead, folder_instead])
def test_a_file_that_is_no_array_is_named(
    read_toy: Toy, name: str, damage: Callable[[Path], None]
) -> None:
    damage(read_toy.folder / name)
    read_toy.refuses(read_toy.read, read_toy.folder / name)


def test_a_pickle_in_an_array_does_not_run(read_toy: Toy) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (Path("ran"),)

    read_toy.save("labels.npy", np.array([Evil()] * 6, object))
    np.load(read_toy.folder / "labels.npy", allow_pickle=True)
    assert Path("ran").exists(), "the pickle of this test does nothing"
    Path("ran").unlink()
    read_toy.refuses(read_toy.read, read_toy.folder / "labels.npy", "without objects")
    assert not Path("ran").exists()


# ---- images --------------------------------------------------------------------------------------

PIXELS = np.random.default_rng(5).integers(0, 256, (4, 9, 12, 3), np.uint8)
NAMES = ["no/a.png", "no/b.png", "yes/a.png", "yes/c.png"]


def images_case(toy: Toy, mode: str, shape: tuple[int, ...], more: str = "") -> None:
    """Four colour images of 9x12 pixels, two of each class."""
    for name, pixels in zip(NAMES, PIXELS, strict=True):
        path = toy.folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    text = TOML.replace('file = "inputs.npy"\n', "").replace('file = "labels.npy"\n', "")
    text = text.replace("positive = 1", 'positive = "yes"').replace("[2]", str(list(shape)))
    toy.toml.write_text(f'{text}\n[images]\nfolder = "images"\nmode = "{mode}"\n{more}')


@pytest.fixture
def images_toy(toy: Toy) -> Toy:
    """The case with images, after a good read_samples."""
    images_case(toy, "rgb", (3, 9, 12))
    accepted(toy, 4, 2)
    return toy


def grey(pixels: NDArray[Any]) -> NDArray[Any]:
    """ITU-R 601-2 luma, in the fixed point that PIL documents as L24."""
    red, green, blue = (pixels[..., i].astype(np.int64) for i in range(3))
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(np.uint8)


def triangle(pixels: NDArray[Any], size: int) -> NDArray[Any]:
    """Bilinear resize of the first axis with antialiasing, one output row at a time."""
    scale = len(pixels) / size
    support = max(scale, 1.0)
    rows = []
    for i in range(size):
        distance = (np.arange(len(pixels)) + 0.5 - (i + 0.5) * scale) / support
        weight = np.clip(1 - np.abs(distance), 0, None)
        rows.append(np.tensordot(weight / weight.sum(), pixels.astype(float), 1))
    return np.array(rows)


def bilinear(pixels: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    across = np.swapaxes(triangle(np.swapaxes(pixels, 0, 1), width), 0, 1)
    return triangle(across, height)


def test_images_are_listed_sorted_with_the_class_of_their_folder(images_toy: Toy) -> None:
    content = json.loads(images_toy.samples.read_text())
    assert content["names"] == NAMES
    assert labels(images_toy) == [0, 0, 1, 1]
    hashed = [str(images_toy.folder / "images" / name) for name in NAMES]
    assert list(content["inputs"]) == [str(images_toy.toml), *hashed]


def test_rgb_without_steps_is_the_pixels(images_toy: Toy) -> None:
    found = batches(images_toy, 3)["x"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, PIXELS.transpose(0, 3, 1, 2))


def test_grey_is_the_luma_with_one_channel(toy: Toy) -> None:
    images_case(toy, "grey", (1, 9, 12))
    accepted(toy, 4, 2)
    np.testing.assert_array_equal(batches(toy)["x"], grey(PIXELS)[:, None])


def test_a_grey_image_in_mode_rgb_is_repeated(toy: Toy) -> None:
    images_case(toy, "rgb", (3, 9, 12))
    Image.fromarray(PIXELS[0, ..., 0]).save(toy.folder / "images" / NAMES[0])
    accepted(toy, 4, 2)
    np.testing.assert_array_equal(batches(toy)["x"][0], np.stack([PIXELS[0, ..., 0]] * 3))


def test_hwc_keeps_the_channels_last_and_uint8_the_pixels(toy: Toy) -> None:
    images_case(toy, "rgb", (9, 12, 3), 'layout = "hwc"\n')
    toy.change("float32", "uint8")
    accepted(toy, 4, 2)
    found = batches(toy)["x"]
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, PIXELS)


def test_scaling_is_divide_then_mean_then_std_by_channel(toy: Toy) -> None:
    steps = "divide_by = 255\nmean = [0.5, 0.25, 0.125]\nstd = [0.5, 2, 4]\n"
    images_case(toy, "rgb", (3, 9, 12), steps)
    accepted(toy, 4, 2)
    scaled = (PIXELS / 255 - np.array([0.5, 0.25, 0.125])) / np.array([0.5, 2, 4])
    found = batches(toy)["x"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, scaled.transpose(0, 3, 1, 2), rtol=0, atol=3e-7)


def test_a_crop_is_centred_with_halves_rounded_to_even(toy: Toy) -> None:
    """torchvision's CenterCrop: round((9 - 4) / 2) = 2 and round((12 - 5) / 2) = 4."""
    images_case(toy, "rgb", (3, 4, 5), "centre_crop = [4, 5]\n")
    accepted(toy, 4, 2)
    cut = PIXELS[:, 2:6, 4:9]
    np.testing.assert_array_equal(batches(toy)["x"], cut.transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("resize", "height", "width"),
    [("6", 6, 8), ("5", 5, 6), ("18", 18, 24), ("[4, 4]", 4, 4), ("[20, 7]", 20, 7)],
)
def test_resize_is_bilinear_with_antialiasing(
    toy: Toy, resize: str, height: int, width: int
) -> None:
    """The shorter side gets the size, the longer int(size * longer / shorter): int(6.67) = 6."""
    images_case(toy, "rgb", (3, height, width), f"resize = {resize}\n")
    accepted(toy, 4, 2)
    found = batches(toy)["x"].transpose(0, 2, 3, 1)
    for image, pixels in zip(found, PIXELS, strict=True):
        # PIL rounds to whole levels after each of the two passes.
        np.testing.assert_allclose(image, bilinear(pixels, height, width), rtol=0, atol=1.01)


def test_resize_nearest_takes_single_pixels(toy: Toy) -> None:
    images_case(toy, "rgb", (3, 3, 4), 'resize = 3\ninterpolation = "nearest"\n')
    accepted(toy, 4, 2)
    np.testing.assert_array_equal(batches(toy)["x"], PIXELS[:, 1::3, 1::3].transpose(0, 3, 1, 2))


@pytest.mark.parametrize("kind", ["bicubic", "lanczos"])
def test_other_resizings_are_those_of_pil(toy: Toy, kind: str) -> None:
    images_case(toy, "rgb", (3, 6, 8), f'resize = 6\ninterpolation = "{kind}"\n')
    accepted(toy, 4, 2)
    filters = {"bicubic": Image.Resampling.BICUBIC, "lanczos": Image.Resampling.LANCZOS}
    wanted = [np.asarray(Image.fromarray(one).resize((8, 6), filters[kind])) for one in PIXELS]
    np.testing.assert_array_equal(batches(toy)["x"], np.stack(wanted).transpose(0, 3, 1, 2))


def test_a_portrait_is_resized_by_its_width(toy: Toy) -> None:
    images_case(toy, "rgb", (3, 8, 6), "resize = 6\n")
    for name, pixels in zip(NAMES, PIXELS, strict=True):
        Image.fromarray(pixels.transpose(1, 0, 2)).save(toy.folder / "images" / name)
    accepted(toy, 4, 2)
    wanted = bilinear(PIXELS[0].transpose(1, 0, 2), 8, 6)
    np.testing.assert_allclose(batches(toy)["x"][0].transpose(1, 2, 0), wanted, rtol=0, atol=1.01)


def test_all_steps_together_come_in_the_documented_order(toy: Toy) -> None:
    steps = "resize = 6\ncentre_crop = 4\ndivide_by = 255\nmean = [0.5]\nstd = [0.25]\n"
    images_case(toy, "grey", (1, 4, 4), steps)
    accepted(toy, 4, 2)
    for found, pixels in zip(batches(toy)["x"], PIXELS, strict=True):
        wanted = (bilinear(grey(pixels), 6, 8)[1:5, 2:6] / 255 - 0.5) / 0.25
        np.testing.assert_allclose(found[0], wanted, rtol=0, atol=1.01 / 255 / 0.25)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "bool"])
@pytest.mark.parametrize("more", ["divide_by = 255\n", "mean = [1, 1, 1]\n", "std = [2, 2, 2]\n"])
def test_scaled_pixels_do_not_become_whole_numbers(images_toy: Toy, more: str, dtype: str) -> None:
    """0 to 255 divided by 255 and cut to whole numbers would be a black image."""
    images_toy.change('mode = "rgb"\n', f'mode = "rgb"\n{more}')
    images_toy.change("float32", dtype)
    images_toy.refuses(images_toy.read, more.split()[0], dtype)


def rgb16(path: Path) -> None:
    """A PNG with 16 bits in each of three channels, which PIL reads as 8 without a word."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    row = b"\0" + np.full((12, 3), 300, ">u2").tobytes()
    header = struct.pack(">IIBBBBB", 12, 9, 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row * 9)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


def grey16(path: Path) -> None:
    Image.fromarray(np.full((9, 12), 300, np.uint16)).save(path)


def ppm16(path: Path) -> None:
    path.write_bytes(b"P6\n12 9\n65535\n" + bytes(12 * 9 * 6))


@pytest.mark.parametrize("write", [grey16, rgb16, ppm16])
def test_an_image_of_16_bits_is_refused(images_toy: Toy, write: Callable[[Path], None]) -> None:
    path = images_toy.folder / "images/no/b.png"
    write(path)
    images_toy.refuses(images_toy.read, path, "8 bits")


def png_header_cut(path: Path) -> None:
    """A header chunk that is too short: PIL raises ValueError, not OSError."""
    data = struct.pack(">II", 12, 9)
    head = struct.pack(">I", len(data)) + b"IHDR" + data
    check = struct.pack(">I", zlib.crc32(b"IHDR" + data))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + check)


def half(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize("damage", [half, emptied, text_instead, png_header_cut])
def test_an_image_that_does_not_decode_is_named(
    images_toy: Toy, damage: Callable[[Path], None]
) -> None:
    path = images_toy.folder / "images/yes/a.png"
    damage(path)
    images_toy.refuses(images_toy.read, f"The image {path} does not decode")


@pytest.mark.parametrize("content", [b"P6\n4 4\n25", b"P6\n4 x4\n255\n", b"P6\n4 4\n255\nabc"])
def test_a_damaged_ppm_is_named(images_toy: Toy, content: bytes) -> None:
    path = images_toy.folder / "images/yes/z.ppm"
    path.write_bytes(content)
    images_toy.refuses(images_toy.read, f"The image {path} does not decode")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('mode = "rgb"\n', 'mode = "rgb"\ncentre_crop = 10\n', ["9x12", "10x10", "resize"]),
        ("[3, 9, 12]", "[3, 12, 9]", ["(3, 9, 12)", "declares (3, 12, 9)"]),
        ('mode = "rgb"', 'mode = "grey"', ["(1, 9, 12)", "declares (3, 9, 12)"]),
        ('mode = "rgb"', 'mode = "rgb"\nlayout = "hwc"', ["(9, 12, 3)", "declares (3, 9, 12)"]),
    ],
)
def test_an_image_of_the_wrong_size_is_named(
    images_toy: Toy, old: str, new: str, words: list[str]
) -> None:
    images_toy.change(old, new)
    images_toy.refuses(images_toy.read, images_toy.folder / "images/no/a.png", *words)


def test_only_the_one_image_of_another_size_is_named(images_toy: Toy) -> None:
    path = images_toy.folder / "images/yes/c.png"
    Image.fromarray(PIXELS[3, :8]).save(path)
    images_toy.refuses(images_toy.read, path, "(3, 8, 12)", "(3, 9, 12)")


def test_a_missing_folder_of_images_is_named(images_toy: Toy) -> None:
    images_toy.change('"images"', '"pictures"')
    images_toy.refuses(images_toy.read, images_toy.toml, "data/toy/pictures does not exist")


@pytest.mark.parametrize("classes", [[], ["yes", "no"]])
def test_an_empty_folder_of_images_is_refused(images_toy: Toy, classes: list[str]) -> None:
    images_toy.change('"images"', '"empty"')
    (images_toy.folder / "empty").mkdir()
    for name in classes:
        (images_toy.folder / "empty" / name).mkdir()
    images_toy.refuses(images_toy.read, "data/toy/empty holds no image", "per class")


def test_images_of_one_class_only_are_refused(images_toy: Toy) -> None:
    for name in NAMES[:2]:
        (images_toy.folder / "images" / name).unlink()
    images_toy.refuses(images_toy.read, images_toy.toml, "all 2 labels are 'yes'")


def test_a_positive_class_that_is_no_folder_is_refused(images_toy: Toy) -> None:
    images_toy.change('"yes"', '"ja"')
    images_toy.refuses(images_toy.read, images_toy.toml, "'ja'", "'no', 'yes'")


def test_a_third_class_is_refused_with_a_head_for_two(images_toy: Toy) -> None:
    folder = images_toy.folder / "images"
    (folder / "maybe").mkdir()
    Image.fromarray(PIXELS[0]).save(folder / "maybe/a.png")
    images_toy.refuses(images_toy.read, "'maybe', 'no', 'yes'", "'logit'")


def test_a_file_that_is_no_image_is_named(images_toy: Toy) -> None:
    path = images_toy.write("images/no/notes.txt", "hello")
    images_toy.refuses(images_toy.read, path, ".png")


def test_an_image_outside_the_folders_of_the_classes_is_not_passed_over(images_toy: Toy) -> None:
    path = images_toy.folder / "images/stray.png"
    Image.fromarray(PIXELS[0]).save(path)
    images_toy.refuses(images_toy.read, path)


def test_hidden_files_are_no_images(images_toy: Toy) -> None:
    images_toy.write("images/no/.DS_Store", "x")
    images_toy.write("images/.cache/a.png", "x")
    accepted(images_toy, 4, 2)


# ---- CSV -----------------------------------------------------------------------------------------

TABLE = "id,a,b,label\nr1,0.5,-1,0\nr2,2,1e-3,1\nr3,-3.25,7,1\n"


def csv_case(toy: Toy, table: str = TABLE, dtype: str = "float32") -> None:
    text = TOML.replace('file = "inputs.npy"', 'columns = ["a", "b"]').replace("float32", dtype)
    text = text.replace('file = "labels.npy"', 'column = "label"')
    toy.toml.write_text(f'{text}\n[csv]\nfile = "data.csv"\n')
    toy.write("data.csv", table)


@pytest.fixture
def csv_toy(toy: Toy) -> Toy:
    """The case with a CSV, after a good read_samples."""
    csv_case(toy)
    accepted(toy, 3, 2)
    return toy


def cells(values: list[str]) -> str:
    """A table whose column `a` holds `values`; the labels alternate."""
    return "a,b,label\n" + "".join(f"{v},1,{i % 2}\n" for i, v in enumerate(values))


def test_columns_are_taken_by_name_in_the_order_listed(csv_toy: Toy) -> None:
    csv_toy.change('["a", "b"]', '["b", "a"]')
    accepted(csv_toy, 3, 2)
    wanted = np.array([[-1, 0.5], [1e-3, 2], [7, -3.25]], np.float32)
    np.testing.assert_array_equal(batches(csv_toy)["x"], wanted)
    assert labels(csv_toy) == [0, 1, 1]


def test_the_result_of_a_csv_names_what_it_was_made_from(csv_toy: Toy) -> None:
    content = json.loads(csv_toy.samples.read_text())
    assert list(content["inputs"]) == ["data/toy/case.toml", "data/toy/data.csv"]
    assert content["arrays"] == {"x": "results/toy/x.npy"}


EXACT = {
    "float32": ["0.1", "3.4028235e38", "1e-45", "-0.0", "16777217", "1.00000005960464477541"],
    "float16": ["65504", "6e-8", "0.1", "-2048.5"],
    "int64": ["9007199254740993", "-9223372036854775808", "9223372036854775807", "+7"],
    "int32": ["2147483647", "-2147483648", "3.0", "1e3"],
    "uint8": ["0", "255", " 7 ", "007"],
    "bool": ["0", "1", "true", "False"],
}


@pytest.mark.parametrize("dtype", EXACT)
def test_cells_come_through_exactly(toy: Toy, dtype: str) -> None:
    csv_case(toy, cells(EXACT[dtype]), dtype)
    accepted(toy, len(EXACT[dtype]), len(EXACT[dtype]) // 2)
    found = batches(toy)["x"][:, 0]
    assert found.dtype == dtype
    truth = {"0": 0, "1": 1, "true": 1, "False": 0}
    for value, text in zip(found, EXACT[dtype], strict=True):
        if dtype == "bool":
            assert value == truth[text]
        elif dtype.startswith("float"):
            assert value.tobytes() == np.dtype(dtype).type(float(text)).tobytes()
        else:
            assert int(value) == (int(float(text)) if set(text) & set(".e") else int(text))


def test_more_rows_than_are_read_at_once_keep_their_order(toy: Toy) -> None:
    count = 10_000
    csv_case(toy, cells([str(i) for i in range(count)]), "int32")
    accepted(toy, count, count // 2)
    np.testing.assert_array_equal(batches(toy)["x"][:, 0], np.arange(count))


def test_rows_fill_a_sample_of_several_axes_in_order(csv_toy: Toy) -> None:
    csv_toy.change("shape = [2]", "shape = [2, 1, 1]")
    accepted(csv_toy, 3, 2)
    assert batches(csv_toy)["x"].shape == (3, 2, 1, 1)
    assert batches(csv_toy)["x"][2].ravel().tolist() == [-3.25, 7]


def test_text_labels_of_a_csv(csv_toy: Toy) -> None:
    csv_toy.write("data.csv", "a,b,label\n1,2,ham\n3,4,spam\n")
    csv_toy.change("positive = 1", 'positive = "spam"')
    accepted(csv_toy, 2, 1)
    assert labels(csv_toy) == [0, 1]


@pytest.mark.parametrize(
    "table",
    ["\ufeff" + TABLE, TABLE.replace("\n", "\r\n"), TABLE.replace("r1", '"r ""1"", or\nso"')],
    ids=["byte order mark", "windows lines", "quotes and a line break"],
)
def test_ways_to_write_the_same_csv(csv_toy: Toy, table: str) -> None:
    before = batches(csv_toy)["x"]
    (csv_toy.folder / "data.csv").write_bytes(table.encode())
    accepted(csv_toy, 3, 2)
    np.testing.assert_array_equal(batches(csv_toy)["x"], before)


def test_an_input_may_be_called_like_a_file_of_the_results(toy: Toy) -> None:
    """An input named "labels" gets its numbers, not the labels."""
    csv_case(toy)
    toy.change('name = "x"', 'name = "labels"')
    result = toy.read()
    if result.exit_code == 0:
        wanted = np.array([[0.5, -1], [2, 1e-3], [-3.25, 7]], np.float32)
        np.testing.assert_array_equal(batches(toy)["labels"], wanted)
        assert labels(toy) == [0, 1, 1]
    else:
        assert "'labels'" in result.output and isinstance(result.exception, SystemExit)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"a", "b"', '"a", "bb"', ["no column 'bb'", "did you mean 'b'?"]),
        ('"a", "b"', '"a", "weight"', ["no column 'weight'", "id, a, b, label"]),
        ('"label"', '"lable"', ["no column 'lable'", "did you mean 'label'?"]),
    ],
)
def test_a_missing_column_suggests_the_nearest(
    csv_toy: Toy, old: str, new: str, words: list[str]
) -> None:
    csv_toy.change(old, new)
    csv_toy.refuses(csv_toy.read, csv_toy.folder / "data.csv", *words)


@pytest.mark.parametrize(
    ("dtype", "cell"),
    [
        ("float32", "abc"),
        ("float32", ""),
        ("float32", "1,5"),
        ("float32", "1_0"),
        ("float32", "0x10"),
        ("float16", "70000"),
        ("uint8", "256"),
        ("uint8", "-1"),
        ("uint8", "1.5"),
        ("uint8", "15e-1"),
        ("uint8", "1_0"),
        ("int32", "2147483648"),
        ("int32", "nan"),
        ("int32", "inf"),
        ("int32", "²"),
        ("int64", "9223372036854775808"),
        ("int64", "9007199254740993.5"),
        ("bool", "2"),
        ("bool", "yes"),
        ("bool", ""),
    ],
)
def test_a_bad_cell_is_named_with_its_row_and_column(toy: Toy, dtype: str, cell: str) -> None:
    csv_case(toy, cells(["1", "0", "1"]), dtype)
    accepted(toy, 3, 1)
    toy.write("data.csv", cells(["1", "0", f'"{cell}"']))
    toy.refuses(
        toy.read, toy.folder / "data.csv", "sample 2", "column 'a'", f"'{cell}'", f"{dtype}."
    )


@pytest.mark.parametrize("cell", ["nan", "inf", "-Infinity", "1e39"])
def test_a_cell_that_is_not_finite_is_named_with_its_row(csv_toy: Toy, cell: str) -> None:
    csv_toy.write("data.csv", cells(["1", "0", cell]))
    csv_toy.refuses(csv_toy.read, csv_toy.folder / "data.csv", "sample 2")


def test_a_bad_cell_far_down_is_counted_from_the_first_row(csv_toy: Toy) -> None:
    csv_toy.write("data.csv", cells(["1"] * 5000 + ["x"]))
    csv_toy.refuses(csv_toy.read, "sample 5000", "'x'")


@pytest.mark.parametrize(("row", "found"), [("1,2\n", "2 values"), ("1,2,1,4\n", "4 values")])
def test_a_row_of_another_length_is_named(csv_toy: Toy, row: str, found: str) -> None:
    csv_toy.write("data.csv", cells(["1", "2"]) + row)
    csv_toy.refuses(csv_toy.read, csv_toy.folder / "data.csv", "sample 2", found, "3 columns")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("a,b,label\n", ["empty"]),
        ("a,b,label", ["empty"]),
        ("a,b,label\n1,2,1\n3,4,1\n", ["all 2 labels are 1"]),
        ("a,b,label\n1,2,0\n3,4,0\n", ["positive label is 1", "labels are 0"]),
        ("a,b,label\n1,2,0\n3,4,1\n5,6,2\n", ["0, 1, 2", "'logit'"]),
        ("a,b,label\n1,2,0\n3,4,\n", ["'', '0'"]),
        ("a,b,label\n1,2,0\n3,4,99999999999999999999\n", ["99999999999999999999"]),
        ("a;b;label\n1;2;0\n3;4;1\n", ["no column 'label'", "a;b;label"]),
        ("a,b,label\n1,2,0\n3,4,\x001\n", ["1"]),
    ],
)
def test_a_csv_whose_data_cannot_be_used(csv_toy: Toy, table: str, words: list[str]) -> None:
    csv_toy.write("data.csv", table)
    text = csv_toy.refuses(csv_toy.read, *words)
    assert str(csv_toy.toml) in text or "data.csv" in text


def test_an_empty_csv_is_said_to_be_empty(csv_toy: Toy) -> None:
    csv_toy.write("data.csv", "")
    csv_toy.refuses(csv_toy.read, csv_toy.folder / "data.csv", "empty")


def test_a_column_that_stands_twice_is_refused(csv_toy: Toy) -> None:
    csv_toy.write("data.csv", "a,b,a,label\n1,2,9,0\n3,4,9,1\n")
    csv_toy.refuses(csv_toy.read, csv_toy.folder / "data.csv", "'a'", "twice")


def test_a_number_of_columns_other_than_the_shape_is_refused(csv_toy: Toy) -> None:
    csv_toy.change("shape = [2]", "shape = [3]")
    csv_toy.refuses(csv_toy.read, "input 'x'", "[3]", "2 columns")


def test_a_csv_that_is_missing_is_named(csv_toy: Toy) -> None:
    (csv_toy.folder / "data.csv").unlink()
    csv_toy.refuses(csv_toy.read, f"{csv_toy.folder / 'data.csv'} does not exist")


def test_a_csv_that_is_not_utf_8_is_named(csv_toy: Toy) -> None:
    (csv_toy.folder / "data.csv").write_bytes("a,b,label\n1,2,é\n".encode("latin-1"))
    csv_toy.refuses(csv_toy.read, csv_toy.folder / "data.csv", "UTF-8")


def test_a_bad_second_input_leaves_the_array_of_the_first(csv_toy: Toy) -> None:
    """Bad input never costs earlier results, also when part of it was good."""
    second = '[[inputs]]\nname = "y"\nshape = [1]\ndtype = "uint8"\ncolumns = ["b"]\n\n[labels]'
    csv_toy.change("[labels]", second)
    csv_toy.write("data.csv", cells(["8", "9"]).replace(",1,1", ",300,1"))
    csv_toy.refuses(csv_toy.read, "sample 1", "column 'b'", "300")


# ---- groups --------------------------------------------------------------------------------------

GROUPS = np.array([9, 4, 9, -2, 4, 9])
CODES = [0, 1, 0, 2, 1, 0]  # in order of first appearance


def opened(toy: Toy) -> Samples:
    return Samples(read_case(toy.toml), toy.samples)


def codes(toy: Toy) -> list[int]:
    groups = opened(toy).groups
    assert groups is not None and groups.dtype == np.int64 and groups.shape == (len(opened(toy)),)
    return groups.tolist()


def group_by(toy: Toy, stored: Any) -> None:
    """The case with these groups for its arrays."""
    text = toy.toml.read_text()
    toy.toml.write_text(text + ('[data]\ngroups = "groups.npy"\n' * ("[data]" not in text)))
    toy.save("groups.npy", stored)


@pytest.fixture
def grouped_toy(toy: Toy) -> Toy:
    """The case with groups, after a good read_samples."""
    group_by(toy, GROUPS)
    accepted(toy, 6, 3)
    return toy


def test_groups_are_named_and_hashed_in_the_result(grouped_toy: Toy) -> None:
    content = json.loads(grouped_toy.samples.read_text())
    assert content["groups"] == "results/toy/groups.npy"
    path = grouped_toy.folder / "groups.npy"
    assert content["inputs"][str(path)] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert codes(grouped_toy) == CODES


@pytest.mark.parametrize(
    "stored",
    [
        GROUPS.astype(np.int8),
        GROUPS.astype(np.float64),
        GROUPS[:, None],
        GROUPS.astype(str),
        np.array(["anna", "b", "anna ", "Anna", " b", "anna"]),
        GROUPS.astype(np.uint64),
    ],
    ids=["int8", "whole floats", "column", "text", "spaces around", "uint64"],
)
def test_groups_of_every_kind_are_read(toy: Toy, stored: NDArray[Any]) -> None:
    group_by(toy, stored)
    accepted(toy, 6, 3)
    assert codes(toy) == CODES


def test_groups_of_one_sample_each_are_read(toy: Toy) -> None:
    group_by(toy, np.array([5, 3, 4, 0, 2, 1]))
    accepted(toy, 6, 3)
    assert codes(toy) == [0, 1, 2, 3, 4, 5]


def test_many_groups_are_coded_in_order_of_first_appearance(toy: Toy) -> None:
    random = np.random.default_rng(4)
    stored = random.integers(0, 300, 2000)
    toy.save("inputs.npy", np.zeros((2000, 2), np.float32))
    toy.save("labels.npy", np.arange(2000) % 2)
    group_by(toy, stored)
    accepted(toy, 2000, 1000)
    first: dict[int, int] = {}
    assert codes(toy) == [first.setdefault(group, len(first)) for group in stored.tolist()]


def test_groups_that_are_left_over_are_not_read(grouped_toy: Toy) -> None:
    grouped_toy.change('[data]\ngroups = "groups.npy"\n', "")
    accepted(grouped_toy, 6, 3)
    assert (grouped_toy.results / "groups.npy").exists(), "nothing was left over"
    assert opened(grouped_toy).groups is None
    assert "groups" not in json.loads(grouped_toy.samples.read_text())


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        (GROUPS[:5], ["5 groups", "6 labels", "one group"]),
        (GROUPS[:0], ["0 groups", "6 labels"]),
        (np.arange(12).reshape(6, 2), ["shape (6, 2)", "groups are (n,)"]),
        (np.array([1, 2, np.nan, 1, 2, 2]), ["no whole numbers", "nan", "or text"]),
        (np.array([1, 2, 2.5, 1, 2, 2]), ["no whole numbers", "2.5"]),
        (np.array(["a", "b", "", "a", "b", "a"]), ["no group for sample 2"]),
        (np.array(["a", "b", "a", "a", " ", "a"]), ["no group for sample 4"]),
        (GROUPS.astype("S2"), ["dtype |S2", "whole numbers or text"]),
        (GROUPS.astype(complex), ["dtype complex128"]),
        (np.array(["a", None] * 3, object), ["without objects"]),
        (np.full(6, 7), ["the group 7 only", "[data]"]),
        (np.full(6, "clinic"), ["the group 'clinic' only", "held out"]),
    ],
)
def test_bad_groups_are_refused(grouped_toy: Toy, stored: Any, words: list[str]) -> None:
    grouped_toy.save("groups.npy", stored)
    grouped_toy.refuses(grouped_toy.read, grouped_toy.folder / "groups.npy", *words)


@pytest.mark.parametrize("damage", [Path.unlink, folder_instead])
def test_missing_groups_are_named(grouped_toy: Toy, damage: Callable[[Path], None]) -> None:
    damage(grouped_toy.folder / "groups.npy")
    grouped_toy.refuses(grouped_toy.read, grouped_toy.toml, "data/toy/groups.npy does not exist")


LISTED = "file,group\nyes/c.png,7\nno/a.png,mr x\nyes/a.png,7\nno/b.png,mr x\n"


@pytest.fixture
def listed_toy(toy: Toy) -> Toy:
    """The case with images and their groups, after a good read_samples."""
    images_case(toy, "rgb", (3, 9, 12), '[data]\ngroups = "groups.csv"\n')
    toy.write("groups.csv", LISTED)
    accepted(toy, 4, 2)
    return toy


def test_groups_of_images_are_found_by_their_names(listed_toy: Toy) -> None:
    assert codes(listed_toy) == [0, 0, 1, 1]
    assert "data/toy/groups.csv" in json.loads(listed_toy.samples.read_text())["inputs"]
    listed_toy.write(
        "groups.csv", "group,note,file\n1,,no/b.png\n2,,no/a.png\n1,,yes/a.png\n3,,yes/c.png"
    )
    accepted(listed_toy, 4, 2)
    assert codes(listed_toy) == [0, 1, 1, 2]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("no/b.png,mr x\n", "", ["no row of 'no/b.png'", "1 in all", "class/name.png"]),
        ("no/b.png", "b.png", ["no row of 'no/b.png'"]),
        ("no/b.png", "no/a.png", ["'no/a.png' twice"]),
        ("yes/c.png,7\n", "yes/c.png,7\nyes/d.png,7\n", ["no image of 'yes/d.png'", "1 in all"]),
        ("yes/c.png,7", "yes/c.png,", ["no group for sample 3"]),
        ("file,group", "file,patient", ["no column 'group'", "file, patient"]),
        ("file,group", "name,group", ["no column 'file'"]),
        (LISTED, "", ["empty"]),
        (LISTED, "file,group\n", ["no row of 'no/a.png'", "4 in all"]),
        (",mr x", ",7", ["the group 7 only"]),
    ],
)
def test_bad_groups_of_images(listed_toy: Toy, old: str, new: str, words: list[str]) -> None:
    listed_toy.write("groups.csv", LISTED.replace(old, new))
    listed_toy.refuses(listed_toy.read, listed_toy.folder / "groups.csv", *words)


def test_groups_of_images_that_are_no_csv_are_named(listed_toy: Toy) -> None:
    listed_toy.save("groups.npy", GROUPS)
    listed_toy.change("groups.csv", "groups.npy")
    listed_toy.refuses(listed_toy.read, listed_toy.folder / "groups.npy", "not a CSV in UTF-8")


@pytest.fixture
def column_toy(toy: Toy) -> Toy:
    """The case with a CSV and a column of groups, after a good read_samples."""
    csv_case(toy, "id,a,b,label\nr1,1,2,0\nr2,3,4,1\nr1,5,6,1\n")
    toy.toml.write_text(toy.toml.read_text() + '[data]\ngroup_column = "id"\n')
    accepted(toy, 3, 2)
    return toy


def test_groups_of_a_csv_come_from_a_column(column_toy: Toy) -> None:
    assert codes(column_toy) == [0, 1, 0]
    column_toy.write("data.csv", "id,a,b,label\n30,1,2,0\n7,3,4,1\n 30,5,6,1\n")
    accepted(column_toy, 3, 2)
    assert codes(column_toy) == [0, 1, 0]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("r2,", ",", ["no group for sample 1"]),
        ("r2,", "r1,", ["the group 'r1' only"]),
        ("id,", "patient,", ["no column 'id'", "patient, a, b"]),
    ],
)
def test_a_bad_column_of_groups(column_toy: Toy, old: str, new: str, words: list[str]) -> None:
    column_toy.change(old, new, "data.csv")
    column_toy.refuses(column_toy.read, column_toy.folder / "data.csv", *words)


# ---- a full disk ---------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[list[str]]:
    """The start of a command that runs with results/ on a disk of 64 KiB."""
    mount = "mount -t tmpfs -o size=64k tmpfs results"
    inside = ["unshare", "--map-root-user", "--mount", "bash", "-c", f'{mount} && exec "$@"', "-"]
    (tmp_path / "results").mkdir()
    try:
        usable = (
            subprocess.run([*inside, "true"], cwd=tmp_path, capture_output=True).returncode == 0
        )
    except FileNotFoundError:
        usable = False
    if not usable:
        pytest.skip("needs unshare and the right to mount")
    yield inside


@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_a_full_disk_ends_in_a_sentence_and_leaves_no_part(
    toy: Toy, small_disk: list[str], environment: dict[str, str], dtype: str
) -> None:
    """The array of the CSV is larger than the disk: results/ is listed before it goes away."""
    csv_case(toy, cells([str(i) for i in range(20_000)]), dtype)
    command = f"{sys.executable} -m scripts.data.read_samples {toy.toml} --out {toy.samples}"
    script = f"{command}; code=$?; find results -type f -printf 'left: %p\\n'; exit $code"
    done = subprocess.run(
        [*small_disk, "bash", "-c", script], env=environment, capture_output=True, text=True
    )
    assert "left:" not in done.stdout
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("Error: ") and "x.npy" in done.stderr


def test_a_folder_inside_a_class_is_named(images_toy: Toy) -> None:
    folder_instead(images_toy.folder / "images/yes/a.png")
    images_toy.refuses(images_toy.read, "images/yes/a.png is a folder inside a class")


def test_rows_come_in_the_order_asked_for_and_a_trial_repeats_them(read_toy: Toy) -> None:
    read_toy.read()
    data = Samples(read_case(read_toy.toml), read_toy.samples)
    assert np.array_equal(data.rows([3, 0, 3])["x"], INPUTS[[3, 0, 3]])
    assert np.array_equal(data.some(2)["x"], INPUTS[[0, len(data) - 1]])
    assert len(data.some(3 * len(data))["x"]) == 3 * len(data)
