"""read_traffic: samples without labels come through exactly, bad ones are refused and cost nothing."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from numpy.typing import NDArray
from PIL import Image

from scripts.case.read_case import read_case
from scripts.data import read_traffic
from scripts.data.samples import Samples
from scripts.files import versions
from tests.toy_case import INPUTS, TOML, Toy, run, says

OUT = Path("results/toy/traffic.json")
NEW = np.array([[1, 2], [3, -4], [0.5, 0], [7, 8], [9, 1], [2, 2], [0, 0]], np.float32)
TWO = '[[inputs]]\nname = "y"\nshape = [1]\ndtype = "uint8"\nfile = "more/y.npy"\n\n[labels]'


def read(toy: Toy) -> Result:
    return run(read_traffic.main, toy.toml, "--out", OUT)


def accepted(toy: Toy, count: int) -> dict[str, Any]:
    done = read(toy)
    assert done.exit_code == 0, done.output
    assert done.output == f"toy: {count} unlabelled samples\n"
    content: dict[str, Any] = json.loads(OUT.read_text())
    assert (content["step"], content["samples"]) == ("traffic", count)
    assert "labels" not in content and "groups" not in content
    return content


def refuses(toy: Toy, *words: object) -> str:
    return toy.refuses(lambda: read(toy), *words)


def opened(toy: Toy) -> Samples:
    return Samples(read_case(toy.toml), OUT)


def batches(toy: Toy, size: int = 3) -> dict[str, NDArray[Any]]:
    parts = list(opened(toy).batches(size))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def name(toy: Toy, place: str) -> None:
    toy.toml.write_text(f'{toy.toml.read_text()}\n[data]\nunlabelled = "{place}"\n')


@pytest.fixture
def traffic_toy(toy: Toy) -> Toy:
    """The case with arrays, after a good read_traffic."""
    name(toy, "traffic")
    (toy.folder / "traffic").mkdir()
    toy.save("traffic/inputs.npy", NEW)
    accepted(toy, 7)
    return toy


# ---- arrays ----------------------------------------------------------------------------------------


def test_a_case_without_unlabelled_data_says_which_key_names_it(toy: Toy) -> None:
    says(read(toy), toy.toml, "unlabelled in [data]")
    assert not OUT.exists()


def test_the_result_names_and_hashes_all_that_it_was_made_from(traffic_toy: Toy) -> None:
    files = [traffic_toy.toml, traffic_toy.folder / "traffic/inputs.npy"]
    assert json.loads(OUT.read_text()) == {
        "step": "traffic",
        "samples": 7,
        "inputs": {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files},
        "versions": versions("numpy"),
        "arrays": {"x": "data/toy/traffic/inputs.npy"},
    }
    assert {path.name for path in OUT.parent.iterdir()} == {"traffic.json"}


def test_traffic_is_opened_like_the_test_data_without_labels(traffic_toy: Toy) -> None:
    data = opened(traffic_toy)
    assert (len(data), data.labelled, data.groups, data.names) == (7, False, None, None)
    assert (data.labels.dtype, data.labels.shape) == (np.uint8, (0,))
    np.testing.assert_array_equal(batches(traffic_toy)["x"], NEW)
    np.testing.assert_array_equal(data.rows([6, 0, 6])["x"], NEW[[6, 0, 6]])
    np.testing.assert_array_equal(data.some(2)["x"], NEW[[0, 6]])
    np.testing.assert_array_equal(data.batch(5, 99)["x"], NEW[5:])


def test_the_test_data_is_still_the_test_data(traffic_toy: Toy) -> None:
    assert traffic_toy.read().exit_code == 0
    data = Samples(read_case(traffic_toy.toml), traffic_toy.samples)
    assert (len(data), data.labelled, len(data.labels)) == (6, True, 6)
    np.testing.assert_array_equal(data.batch(0, 6)["x"], INPUTS)


def test_every_input_has_its_file_of_the_same_name(traffic_toy: Toy) -> None:
    traffic_toy.change("[labels]", TWO)
    refuses(traffic_toy, "data/toy/traffic/y.npy does not exist")
    traffic_toy.save("traffic/y.npy", np.arange(6, dtype=np.uint8)[:, None])
    words = ["y.npy holds 6 samples", "inputs.npy holds 7", "all inputs"]
    assert "labels" not in refuses(traffic_toy, *words)
    traffic_toy.save("traffic/y.npy", np.arange(7, dtype=np.uint8)[:, None])
    assert list(accepted(traffic_toy, 7)["arrays"]) == ["x", "y"]
    assert batches(traffic_toy)["y"].ravel().tolist() == list(range(7))


def test_two_files_of_one_name_cannot_lie_in_one_folder(traffic_toy: Toy) -> None:
    traffic_toy.change("[labels]", TWO.replace("y.npy", "inputs.npy"))
    refuses(traffic_toy, traffic_toy.toml, "one name", "differently")


NAN = NEW.copy()
NAN[4, 1] = np.nan


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        (NEW.astype(np.float64), ["dtype float64", "declares float32"]),
        (NEW[:, :1], ["(1,)", "declares (2,)"]),
        (np.float32(3), ["shape"]),
        (np.asfortranarray(NEW), ["Fortran order"]),
        (NAN, ["NaN or infinity", "first in sample 4"]),
        (NEW[:0], ["no sample", "unlabelled"]),
        (np.array([{}] * 6), ["without objects"]),
    ],
)
def test_bad_arrays_are_refused(traffic_toy: Toy, stored: Any, words: list[str]) -> None:
    traffic_toy.save("traffic/inputs.npy", stored)
    refuses(traffic_toy, traffic_toy.folder / "traffic", *words)


def gone(path: Path) -> None:
    for one in path.iterdir():
        one.unlink()
    path.rmdir()


def file_instead(path: Path) -> None:
    gone(path)
    path.write_text("x")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (gone, ["data/toy/traffic does not exist", "[data]"]),
        (file_instead, ["data/toy/traffic is a file", "must be a folder"]),
    ],
)
def test_a_folder_that_is_none_is_named(
    traffic_toy: Toy, damage: Callable[[Path], None], words: list[str]
) -> None:
    damage(traffic_toy.folder / "traffic")
    refuses(traffic_toy, traffic_toy.toml, *words)


def test_an_array_of_no_input_is_not_passed_over(traffic_toy: Toy) -> None:
    traffic_toy.save("traffic/inputs2.npy", NEW)
    refuses(traffic_toy, "traffic/inputs2.npy is of no input", "inputs.npy")


def test_the_labelled_data_is_no_traffic(traffic_toy: Toy) -> None:
    traffic_toy.change('"traffic"', '"."')
    refuses(traffic_toy, traffic_toy.toml, "labelled test data", "twice")
    traffic_toy.change('"."', '"traffic"')
    (traffic_toy.folder / "traffic/inputs.npy").unlink()
    (traffic_toy.folder / "traffic/inputs.npy").symlink_to("../inputs.npy")
    refuses(traffic_toy, "labelled test data", "twice")


# ---- images ----------------------------------------------------------------------------------------

PIXELS = np.random.default_rng(5).integers(0, 256, (4, 9, 12, 3), np.uint8)
PLACES = ["a.png", "monday/b.png", "monday/c.png", "tuesday/a.png"]


@pytest.fixture
def images_toy(toy: Toy) -> Toy:
    """The case with images, after a good read_traffic."""
    text = TOML.replace('file = "inputs.npy"\n', "").replace('file = "labels.npy"\n', "")
    text = text.replace("positive = 1", 'positive = "yes"').replace("[2]", "[3, 9, 12]")
    toy.toml.write_text(text + '\n[images]\nfolder = "images"\nmode = "rgb"\n')
    name(toy, "traffic")
    for place, pixels in zip(reversed(PLACES), reversed(PIXELS), strict=True):
        path = toy.folder / "traffic" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    (toy.folder / "images").mkdir()
    accepted(toy, 4)
    return toy


def test_images_lie_in_the_folder_or_in_a_subfolder_and_come_sorted(images_toy: Toy) -> None:
    content = json.loads(OUT.read_text())
    assert (content["names"], content["folder"]) == (PLACES, "data/toy/traffic")
    hashed = [f"data/toy/traffic/{place}" for place in PLACES]
    assert list(content["inputs"]) == [str(images_toy.toml), *hashed]
    assert (len(opened(images_toy)), opened(images_toy).names) == (4, PLACES)
    np.testing.assert_array_equal(batches(images_toy)["x"], PIXELS.transpose(0, 3, 1, 2))


def test_images_of_the_same_name_are_not_taken_from_the_test_data(images_toy: Toy) -> None:
    other = images_toy.folder / "images/monday"
    other.mkdir()
    Image.fromarray(255 - PIXELS[1]).save(other / "b.png")
    np.testing.assert_array_equal(batches(images_toy)["x"], PIXELS.transpose(0, 3, 1, 2))


def test_hidden_files_are_no_images(images_toy: Toy) -> None:
    images_toy.write("traffic/.DS_Store", "x")
    images_toy.write("traffic/monday/.DS_Store", "x")
    images_toy.write("traffic/.cache/a.png", "x")
    accepted(images_toy, 4)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("notes.txt", ["no image that is known", ".png"]),
        ("monday/notes.txt", ["no image that is known", ".png"]),
        ("z.png", ["does not decode"]),
        ("tuesday/z.png", ["does not decode"]),
    ],
)
def test_a_file_that_is_no_image_is_named(images_toy: Toy, place: str, words: list[str]) -> None:
    path = images_toy.write(f"traffic/{place}", "hello")
    refuses(images_toy, path, *words)


def test_an_image_of_another_size_is_named(images_toy: Toy) -> None:
    path = images_toy.folder / "traffic/monday/c.png"
    Image.fromarray(PIXELS[0, :8]).save(path)
    refuses(images_toy, path, "(3, 8, 12)", "(3, 9, 12)")


def test_a_deeper_folder_is_named(images_toy: Toy) -> None:
    path = images_toy.write("traffic/monday/noon/a.png", "x").parent
    refuses(images_toy, path, "inside a subfolder")


def test_no_image_at_all_is_refused(images_toy: Toy) -> None:
    (images_toy.folder / "empty/monday").mkdir(parents=True)
    images_toy.change('"traffic"', '"empty"')
    refuses(images_toy, "data/toy/empty holds no sample", "unlabelled")


@pytest.mark.parametrize("place", [".", "images", "images/traffic"])
def test_images_of_the_test_data_are_no_traffic(images_toy: Toy, place: str) -> None:
    (images_toy.folder / "images/traffic").mkdir()
    images_toy.change('"traffic"', f'"{place}"')
    refuses(images_toy, images_toy.toml, "labelled test data", "twice")


# ---- CSV -------------------------------------------------------------------------------------------


@pytest.fixture
def csv_toy(toy: Toy) -> Toy:
    """The case with a CSV, after a good read_traffic; the columns lie in another order."""
    text = TOML.replace('file = "inputs.npy"', 'columns = ["a", "b"]')
    text = text.replace('file = "labels.npy"', 'column = "label"')
    toy.toml.write_text(f'{text}\n[csv]\nfile = "data.csv"\n')
    name(toy, "new.csv")
    toy.write("data.csv", "a,b,label\n1,2,0\n3,4,1\n")
    toy.write("new.csv", "id,b,a\nr1,-1,0.5\nr2,1e-3,2\nr3,7,-3.25\n")
    accepted(toy, 3)
    return toy


def test_a_csv_needs_the_columns_of_the_inputs_only(csv_toy: Toy) -> None:
    content = json.loads(OUT.read_text())
    assert content["arrays"] == {"x": "results/toy/x.traffic.npy"}
    assert list(content["inputs"]) == [str(csv_toy.toml), "data/toy/new.csv"]
    wanted = np.array([[0.5, -1], [2, 1e-3], [-3.25, 7]], np.float32)
    np.testing.assert_array_equal(batches(csv_toy)["x"], wanted)
    assert csv_toy.read().exit_code == 0
    np.testing.assert_array_equal(batches(csv_toy)["x"], wanted)
    assert np.load(OUT.parent / "x.npy").tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("a,b\n", ["no sample"]),
        ("", ["empty"]),
        ("a,label\n1,2\n", ["no column 'b'"]),
        ("a,b\n1,2\n3,x\n", ["sample 1", "column 'b'", "'x'"]),
        ("a,b\n1,2\n3,nan\n", ["sample 1", "column 'b'", "'nan'"]),
        ("a,b\n1,2\n3\n", ["sample 1", "1 values", "2 columns"]),
    ],
)
def test_a_bad_csv_is_refused(csv_toy: Toy, table: str, words: list[str]) -> None:
    csv_toy.write("new.csv", table)
    refuses(csv_toy, csv_toy.folder / "new.csv", *words)


def test_a_csv_that_is_missing_or_a_folder_is_named(csv_toy: Toy) -> None:
    path = csv_toy.folder / "new.csv"
    path.unlink()
    refuses(csv_toy, f"{path} does not exist")
    path.mkdir()
    refuses(csv_toy, f"{path} is a folder, and must be a CSV")


def test_the_csv_of_the_test_data_is_no_traffic(csv_toy: Toy) -> None:
    csv_toy.change('"new.csv"', '"data.csv"')
    refuses(csv_toy, "labelled test data", "twice")


def test_a_csv_without_columns_is_refused(csv_toy: Toy) -> None:
    csv_toy.change('["a", "b"]', "[]")
    refuses(csv_toy, "input 'x'", "[2]", "0 columns")
