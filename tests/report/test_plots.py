"""The plots as SVG: small, the same each time, in the colours of the page, at peace with each other."""

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner

from scripts.report import (
    draw_pictures,
    pictures,
    plot_culprits,
    plot_deviation,
    plot_layers,
    plot_threshold,
)
from scripts.report.html_style import COLOURS
from scripts.report.pictures import save, svg

LARGEST = 300_000


def deviation(samples: int, name: str = "onnx_fp16") -> Any:
    random = np.random.default_rng(0)
    reference = random.normal(0, 2, samples).astype(np.float32)
    logits = reference + random.normal(0, 0.3, samples).astype(np.float32)
    return plot_deviation.draw(logits, reference, 0.25, name, "torch_fp32")


def threshold(samples: int) -> Any:
    random = np.random.default_rng(0)
    labels = (random.random(samples) < 0.3).astype(np.uint8)
    logits = random.normal(2.0 * labels - 1, 1.2).astype(np.float32)
    return plot_threshold.draw(logits, labels, {"logit": 0.5}, 0.9, "torch_fp32")


def layers(tensors: int) -> Any:
    random = np.random.default_rng(0)
    found = [
        {"name": f"t{i}", "node": f"node <{i}> & #000000", "magnitude": float(random.random()),
         "relative_error": None if i % 7 == 6 else float(random.random())}
        for i in range(tensors)
    ]  # fmt: skip
    return plot_layers.draw({"tensors": found, "first_jump": "t1", "variant": "onnx_fp16",
                             "source": "onnx_fp32", "samples": [1]})  # fmt: skip


def culprits(segments: int) -> Any:
    found = [{"nodes": [f"/conv{i}/<x>", "b"], "change_mean": None if i == 1 else 0.5 / (i + 1),
              "flips_left": i} for i in range(segments)]  # fmt: skip
    return plot_culprits.draw({"segments": found, "variant": "onnx_int8", "samples": [1]})


FIGURES = {
    "deviation": lambda: deviation(899), "deviation of many": lambda: deviation(10**6),
    "threshold": lambda: threshold(899), "threshold of many": lambda: threshold(10**6),
    "layers": lambda: layers(12), "named layers": lambda: layers(40),
    "layers with markers": lambda: layers(500), "layers of many": lambda: layers(5000),
    "culprits": lambda: culprits(3), "culprits of many": lambda: culprits(400),
}  # fmt: skip


@pytest.fixture(scope="module", params=list(FIGURES))
def text(request: pytest.FixtureRequest) -> str:
    return svg(FIGURES[request.param](), "onnx_fp16.plot")


def test_it_is_small_and_well_formed(text: str) -> None:
    assert 2000 < len(text.encode()) < LARGEST
    root = ElementTree.fromstring(text)
    assert root.attrib["viewBox"]
    assert len(list(root.iter())) > 20


def test_its_colours_are_those_of_the_page(text: str) -> None:
    styles = re.findall(r'style="([^"]*)"', text)
    used = {word for style in styles for word in re.findall(r"(?:fill|stroke): ([^;]+)", style)}
    known = {*pictures.COLOURS.values(), "none"}
    assert used <= known, used - known
    assert any("currentColor" in style for style in styles)
    names = set(re.findall(r"var\(--([a-z]+)", " ".join(pictures.COLOURS.values())))
    assert names and names <= set(COLOURS)


def test_it_brings_no_rule_date_or_program(text: str) -> None:
    for word in ("<style", "<metadata", "matplotlib", "DOCTYPE", "xlink", "20\\d\\d-"):
        assert not re.search(word, text), word
    assert re.findall(r"https?://[^\"]*", text) == ["http://www.w3.org/2000/svg"]


def test_every_reference_leads_to_an_id_and_every_id_is_referred_to(text: str) -> None:
    ids = re.findall(r'\bid="([^"]+)"', text)
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    assert len(ids) == len(set(ids))
    assert set(ids) == used
    assert all(one.startswith("onnx_fp16-plot-") for one in ids)


def test_two_plots_share_no_id() -> None:
    first, second = (
        set(re.findall(r'\bid="([^"]+)"', svg(deviation(50, name), f"{name}.deviation")))
        for name in ("onnx_fp16", "onnx_fp32")
    )
    assert first and second and not first & second


def test_what_a_node_is_called_is_text() -> None:
    text = svg(layers(5), "a")
    assert "node <0> & #000000" in "".join(ElementTree.fromstring(text).itertext())


def test_the_same_figure_gives_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        save(deviation(300), tmp_path / folder / "a.png")
    one, two = (tmp_path / name for name in ("one", "two"))
    assert sorted(path.name for path in one.iterdir()) == ["a.png", "a.svg"]
    for name in ("a.png", "a.svg"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_the_png_is_what_it_is_without_an_svg(tmp_path: Path) -> None:
    save(layers(600), tmp_path / "a.png")
    layers(600).savefig(tmp_path / "b.png", dpi=110, metadata={"Software": None})
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_step_writes_both(tmp_path: Path) -> None:
    found = tmp_path / "onnx_int8.culprits.json"
    segment = {"nodes": ["conv"], "change_mean": 0.5, "flips_left": 1}
    found.write_text(json.dumps({"segments": [segment], "variant": "onnx_int8", "samples": [1, 2]}))
    out = tmp_path / "onnx_int8.culprits.png"
    arguments = ["--variant", "onnx_int8", "--results", str(tmp_path), "--reference", "torch_fp32"]
    done = CliRunner().invoke(draw_pictures.main, [*arguments, "culprits"])
    assert done.exit_code == 0, done.output
    assert out.read_bytes().startswith(b"\x89PNG")
    assert out.with_suffix(".svg").read_text().startswith("<?xml")
