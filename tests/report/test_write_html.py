"""report.html: whole, closed to the world, readable in light and dark, and the report that report.md is."""

import copy
import json
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from scripts.report import dossier
from scripts.report.dossier import plain
from scripts.report.html_sections import VISIBLE, slug
from scripts.report.html_style import COLOURS, RULES, style
from scripts.report.write_html import literal, main, nearest_samples, page, read_plot
from scripts.report.write_report import render
from tests import browser

pytestmark = pytest.mark.xdist_group("html")  # what is set up once for all is set up once

REPORT = Path(__file__).parents[1] / "golden" / "report.json"
VOID = {"meta", "img", "br", "hr", "link", "input"}
PNG = b"\x89PNG" + bytes(300)
SVG = '<svg viewBox="0 0 10 10"><defs><path id="{0}" d="M 0 0"/></defs><use href="#{0}"/></svg>'
NEAREST = [
    {"index": i, "label": i % 2, "reference_logit": 0.6, "reference_distance": -0.01, "name": f"no/{i}.png"}
    for i in (6, 17, 40)
]  # fmt: skip
AWKWARD = [
    "<script>alert(1)</script>.png", "a|b \"quoted\" 'x'.png", "*bold* _x_ `code`.png", "two\nlines\t.png",
    "[a](http://evil.example/)![b](c.svg).png", "ä 数字 \U0001f600.png", "\u202egnp.exe", "&amp; &lt;b&gt;",
    "\\", "# no heading", "<http://evil.example/>", "\udcff", "x" * 300, "",
]  # fmt: skip


def facts() -> dict[str, Any]:
    report: dict[str, Any] = json.loads(REPORT.read_text())
    return report


def plot(name: str) -> str:
    return SVG.format(name.replace(".", "-"))


def html(report: dict[str, Any], nearest: Any = NEAREST, picture: Any = lambda i: PNG) -> str:
    return page(report, plot, nearest, picture)


class Page(HTMLParser):
    """Reads a page and refuses what is not closed: `texts` by tag, `attributes`, what each id stands in."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.inside: dict[str, list[str]] = {}
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            self.attributes.append((tag, name, value or ""))
            if name == "id":
                assert value not in self.inside, f"the id {value} stands twice"
                self.inside[value or ""] = list(self.open)
        if tag not in VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        for tag in set(self.open):
            self.texts[tag][-1] += data


def flat(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture(scope="module")
def golden() -> str:
    return html(facts())


def test_nothing_is_fetched_and_nothing_runs(golden: str) -> None:
    found = Page(golden)
    assert golden.count("http://") + golden.count("https://") == 0
    for tag, name, value in found.attributes:
        assert tag not in ("script", "link", "iframe", "object", "base", "form"), tag
        assert not name.startswith("on") and name not in ("srcset", "data", "poster"), name
        if name == "src":
            assert value.startswith("data:image/"), value
        if name in ("href", "xlink:href"):
            assert value.startswith("#"), value
    assert not re.search(r"url\((?!#)|@import", golden)
    policies = [value for tag, name, value in found.attributes if "default-src" in value]
    assert len(policies) == 1
    for rule in ("default-src 'none'", "style-src 'unsafe-inline'", "img-src data:"):
        assert rule in policies[0].split("; ")


def test_the_links_at_the_top_lead_to_every_section(golden: str) -> None:
    found = Page(golden)
    links = [v[1:] for tag, name, v in found.attributes if (tag, name) == ("a", "href")]
    titles = re.findall(r"^## (.*)", render(facts(), ""), re.MULTILINE)
    assert sorted(found.texts["h2"]) == sorted([*titles, "Samples"])
    assert len(links) == len(titles) + 1
    for link in links:
        assert link in found.inside, link
        folded = "details" in found.inside[link]
        assert folded is (link not in {*map(slug, VISIBLE), "samples"}), link


def test_every_cell_and_sentence_of_the_markdown_is_there(golden: str) -> None:
    found = Page(golden)
    cells = {flat(text) for tag in ("td", "th") for text in found.texts[tag]}
    text = flat(found.texts["main"][0])
    wanted, sentences = 0, 0
    for line in render(facts(), "").splitlines():
        words = re.sub(r"\*\*|`|^[#*] +", "", line).strip()
        if line.startswith("|--"):
            continue
        if line.startswith("|"):
            for cell in words.strip("|").split("|"):
                assert flat(cell) in cells, cell
                wanted += 1
        elif words and not line.startswith("!["):
            assert flat(re.sub(r"^#+ ", "", words)) in text, line
            sentences += 1
    assert wanted > 500 and sentences > 30


def test_numbers_stand_to_the_right_and_tables_in_boxes_of_their_own(golden: str) -> None:
    assert golden.count('<div class="scroll" tabindex="0">\n<table>') == golden.count("<table>") > 8
    assert '<td class="n">-0.5</td>' in golden
    assert "text-align:right" not in golden.replace(style(), "")


def test_a_variant_is_named_once_for_the_rows_that_follow_one_another(golden: str) -> None:
    gates = golden[golden.index('id="gates"') :]
    gates = gates[: gates.index("</table>")]
    rows = {name: row["gates"] for name, row in facts()["variants"].items() if row.get("gates")}
    for name, found in rows.items():
        assert gates.count(f'<td rowspan="{len(found)}"><code>{name}</code></td>') == 1
    assert gates.count("<tr") == 1 + sum(len(found) for found in rows.values())
    assert gates.count('<tr class="fails">') == gates.count("<strong>failed</strong>") == 2
    variants = golden[golden.index('id="variants"') : golden.index('id="gates"')]
    assert variants.count('<tr class="chosen">') == 1
    assert variants.count('<tr class="absent">') == 7


def test_the_recommendation_stands_first_in_a_box(golden: str) -> None:
    box = golden[golden.index('<div class="box warn">') : golden.index('<div class="notes">')]
    assert "To production: <code>onnx_int8_mixed</code>" in box
    assert "Release: the evidence is insufficient" in box
    assert golden.index('class="box warn"') < golden.index("<nav") < golden.index('id="variants"')
    assert "Little evidence" in golden[golden.index('<div class="notes">') : golden.index("<nav")]
    assert "details" not in golden[golden.index("<header>") : golden.index("<nav")]


def test_no_recommendation_is_a_warning() -> None:
    report = facts()
    report["recommendation"] = {
        "variant": None, "threshold": None, "reasons": ["no converted variant passes every gate"],
        "not_chosen": dict.fromkeys(report["variants"], "fails"), "sensitivity": [],
    }  # fmt: skip
    text = html(report)
    assert '<div class="box warn">' in text and 'class="chosen"' not in text
    Page(text)


@pytest.mark.parametrize(("fails", "kind"), [(["parity"], "box warn"), ([], "box")])
def test_a_promotion_by_hand_stands_in_the_box_with_what_it_overrides(
    fails: list[str], kind: str
) -> None:
    report = facts()
    report["promotion"] = {
        "variant": "onnx_fp16",
        "threshold": 0.5,
        "failed_gates": fails,
        "open_gates": [],
    }
    text = html(report)
    box = text[text.index(f'<div class="{kind}">') : text.index('<div class="notes">')]
    assert box.index("Promoted by hand") < box.index("To production: ")


def test_a_folded_part_says_what_is_inside(golden: str) -> None:
    words = [flat(text) for text in Page(golden).texts["summary"]]
    for wanted in (
        "Flips 9 of 60 for onnx_fp16; 4 of 54 for onnx_int8", "Re-tuned thresholds onnx_fp16, onnx_int8",
        "Latency in process percentiles and throughput of 6 variants", "9 of 60 flip in onnx_fp16",
        "Scored again under other conditions no verdict changes", "The 3 nearest to the threshold",
        "What the figures mean, and their formulas",
    ):  # fmt: skip
        assert wanted in words, words
    assert golden.count("<details>") == len(words) and "<details open" not in golden


def test_verdicts_that_change_from_run_to_run_are_told_in_the_summary() -> None:
    report = facts()
    report["variants"]["onnx_fp16"]["repeats"]["metrics"]["flips"] = 2
    assert "2 verdicts of onnx_fp16 change</summary>" in html(report)


def test_a_section_that_is_not_known_is_shown_too(monkeypatch: pytest.MonkeyPatch) -> None:
    before = VISIBLE
    assert "New" not in before
    monkeypatch.setattr(
        "scripts.report.write_html.sections", lambda report, pictures: ["# A\n\nB", "## New\n\nText of it\n"]
    )  # fmt: skip
    text = html(facts())
    assert "<h2>New</h2>" in text and "<p>Text of it</p>" in text
    Page(text)


# ---- pictures ------------------------------------------------------------------------------------


def test_plots_stand_in_the_page_with_what_they_show(golden: str) -> None:
    found = Page(golden)
    pictures = re.findall(r"!\[(.*)\]\((.*)\.png\)", render(facts(), ""))
    labels = [v for tag, name, v in found.attributes if (tag, name) == ("svg", "aria-label")]
    assert labels == [words for words, _ in pictures] and len(labels) > 5
    assert golden.count('class="plot" role="img"') == len(labels)
    assert [flat(text) for text in found.texts["figcaption"]] == labels


def test_a_plot_comes_without_what_only_a_file_needs(tmp_path: Path) -> None:
    path = tmp_path / "a.svg"
    path.write_text('<?xml version="1.0"?>\n<svg fill="currentColor" width="9pt" height="9pt" '
                    'viewBox="0 0 9 9" xmlns="http://www.w3.org/2000/svg" version="1.1">\n  '
                    '<path width="3"/>\n\n</svg>\n')  # fmt: skip
    assert read_plot(path) == (
        '<svg fill="currentColor" viewBox="0 0 9 9">\n<path width="3"/>\n</svg>'
    )


# ---- single samples ------------------------------------------------------------------------------


def cards(text: str) -> list[str]:
    return [
        flat(re.sub(r"<[^>]*>", " ", part)).replace("&#x27;", "'")
        for grid in re.findall(r'<ul class="cards">(.*?)</ul>', text, re.DOTALL)
        for part in re.findall(r"<li>(.*?)</li>", grid, re.DOTALL)
    ]


def test_a_card_for_each_flip_and_for_the_nearest(golden: str) -> None:
    found = cards(golden)
    assert len(found) == 9 + 4 + 3
    assert found[0] == (
        "yes/017.png sample 17 label positive reference logit 0.625 to threshold +0.00781 "
        "onnx_fp16 flips 0.125 onnx_int8 flips 0.225"
    )
    assert found[-3] == (
        "no/6.png sample 6 label negative reference logit 0.6 to threshold -0.01 onnx_int8 flips 0.9625"
    )
    assert found[-1].endswith("flips in no variant")
    assert golden.count("<img ") == 16


def test_flips_of_a_re_tuned_variant_say_what_its_own_threshold_does(golden: str) -> None:
    assert "own, 0.117188, 0 do." in golden


def test_a_sample_without_a_picture_has_no_box_for_one() -> None:
    text = html(facts(), picture=lambda i: None)
    assert "<img" not in text and 'class="gone"' not in text
    assert len(cards(text)) == 16


def test_a_sample_that_cannot_be_read_any_more_has_a_sentence() -> None:
    def picture(index: int) -> bytes:
        if index == 17:
            raise ValueError("The image cannot be shown: it is <gone>.")
        return b"\xff\xd8\xff" + bytes(10)

    text = html(facts(), picture=picture)
    assert text.count('<p class="gone">The image cannot be shown: it is &lt;gone&gt;.</p>') == 3
    assert text.count("data:image/jpeg;base64,") == 13


def test_a_logit_that_is_not_finite_and_a_sample_without_a_label() -> None:
    report = facts()
    report["variants"]["onnx_fp16"]["flips"]["samples"][0] |= {"variant_logit": None, "label": None}
    first = cards(html(report, []))[0]
    assert "label none" in first and "onnx_fp16 flips not finite" in first


def test_names_are_text_whatever_they_hold() -> None:
    report = facts()
    flips = report["variants"]["onnx_fp16"]["flips"]
    flips["samples"] = [flips["samples"][0] | {"name": name} for name in AWKWARD]
    report["inputs"] = {f"data/golden/{name}": "0" * 64 for name in AWKWARD}
    text = html(report, [NEAREST[0] | {"name": name} for name in AWKWARD])
    text.encode("utf-8")
    found = Page(text)
    names = [plain(name) for name in AWKWARD]
    assert found.texts["h4"][: len(names)] == found.texts["h4"][-len(names) :] == names
    cells = [flat(cell) for cell in found.texts["td"]]
    for name in AWKWARD:
        assert flat(plain(name)) in cells, name
        assert flat(f"data/golden/{plain(name)}") in cells, name
    assert not {tag for tag, _, _ in found.attributes} & {"script", "b", "em"}
    links = [v for tag, name, v in found.attributes if name in ("href", "src")]
    assert all(link.startswith(("#", "data:")) for link in links)
    assert plain("two\nlines\t.png") == "two\\nlines\\t.png"


def test_a_name_escaped_for_markdown_is_itself() -> None:
    assert literal("a_b*c|d") == r"a\_b\*c\|d"


def test_ten_thousand_flips_stay_a_file_that_can_be_sent() -> None:
    report = facts()
    for row in report["variants"].values():
        if row["measured"] and row["flips"]["samples"]:
            one = row["flips"]["samples"][0]
            row["flips"] = {
                "total": 10_000, "positive_to_negative": 10_000, "negative_to_positive": 0,
                "samples": [one | {"index": i, "name": f"yes/{i}.png"} for i in range(10_000)],
            }  # fmt: skip
    started = time.perf_counter()
    text = html(report, picture=lambda i: b"\x89PNG" + bytes(6000))
    assert time.perf_counter() - started < 10
    assert len(text.encode()) < 1_000_000
    assert len(cards(text)) == 2 * dossier.SHOWN + 3
    assert (
        "The 20 nearest to the threshold are shown; 9980 more stand in "
        "<code>results/golden/onnx_fp16.verdicts.json</code>." in text
    )


def test_no_flips_at_all() -> None:
    report = facts()
    for row in report["variants"].values():
        if row["measured"]:
            none = {"total": 0, "positive_to_negative": 0, "negative_to_positive": 0, "samples": []}
            row |= {"flips": none, "retuning": None, "retuned_threshold": None}
    text = html(report)
    assert "No verdict flips in any variant that was measured." in text
    assert len(cards(text)) == 3
    assert "<h2>Flips</h2> none</summary>" in text
    Page(html(report, []))


def test_two_variants_alone() -> None:
    report = facts()
    absent = report["variants"]["trt_int8"]
    for name in report["variants"]:
        if name not in ("torch_fp32", "torchscript_fp32"):
            report["variants"][name] = copy.deepcopy(absent)
    report["recommendation"]["not_chosen"] = dict.fromkeys(report["variants"], "left out")
    report["conditions"]["device"] = "cuda"
    text = html(report)
    Page(text)
    assert len(cards(text)) == 3


def test_the_same_facts_give_the_same_bytes(golden: str) -> None:
    assert html(facts()) == golden


def test_the_nearest_are_those_of_the_reference() -> None:
    report = {"case": "a", "samples": 4, "threshold": {"logit": 0.5}}
    logits = np.array([3, 0.25, 0.625, np.nan], np.float32)
    data = SimpleNamespace(labels=np.array([0, 1, 1, 0], np.uint8), names=None)
    found = nearest_samples(report, logits, data)
    assert found[0] == {
        "index": 2, "label": 1, "reference_logit": 0.625, "reference_distance": 0.125,
    }  # fmt: skip
    assert [one["index"] for one in found] == [2, 1, 0]


# ---- colours -------------------------------------------------------------------------------------


def contrast(one: str, other: str) -> float:
    """WCAG 2.2: (L1 + 0.05) / (L2 + 0.05)."""

    def luminance(colour: str) -> float:
        parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def declared() -> list[dict[str, str]]:
    blocks = re.findall(r":root\{(.*?)\}", style())
    return [dict(re.findall(r"--([a-z]+):(#[0-9a-f]{6});", block)) for block in blocks]


def test_contrast_is_computed_as_the_standard_does() -> None:
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


def test_every_variable_is_declared_for_light_and_for_dark() -> None:
    light, dark = declared()
    assert set(light) == set(dark) == set(COLOURS) >= set(re.findall(r"var\(--([a-z]+)\)", RULES))
    assert not re.search(r"#[0-9a-f]{3,6}\b", RULES), "a colour that does not change with the theme"


@pytest.mark.parametrize("theme", [0, 1])
def test_text_can_be_read_on_every_ground(theme: int) -> None:
    colours = declared()[theme]
    for text in ("text", "quiet", "link", "good", "bad"):
        for ground in ("back", "soft", "mark", "warn"):
            found = contrast(colours[text], colours[ground])
            assert found >= 4.5, f"{text} on {ground}: {found:.2f}"
    for series in ("blue", "red", "orange"):
        assert contrast(colours[series], colours["back"]) >= 3, series


# ---- the command ---------------------------------------------------------------------------------

TOML = """\
[model]
factory = "model.py:build"
weights = "weights.pth"
head = "logit"
max_batch = 4

[[inputs]]
name = "x"
shape = [3, 32, 32]
dtype = "float32"

[labels]
positive = "yes"

[images]
folder = "images"
mode = "rgb"
"""


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The golden report with images, logits and plots: the arguments of the command."""
    monkeypatch.chdir(tmp_path)
    names = [f"{'yes' if i % 2 else 'no'}/{i:03}.png" for i in range(60)]
    for i, name in enumerate(names):
        path = Path("data/golden/images", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (200, 150), (4 * i, 120, 90)).save(path)
    results = Path("results/golden")
    results.mkdir(parents=True)
    Path("data/golden/case.toml").write_text(TOML)
    np.save(results / "labels.npy", (np.arange(60) % 2).astype(np.uint8))
    np.save(results / "torch_fp32.logits.npy", np.linspace(-3, 3, 60, dtype=np.float32))
    found = {"labels": "results/golden/labels.npy", "arrays": {}, "names": names}
    (results / "samples.json").write_text(json.dumps(found))
    (results / "report.json").write_text(REPORT.read_text())
    for _, name in re.findall(r"!\[(.*)\]\((.*)\.png\)", render(facts(), "")):
        (results / f"{name}.svg").write_text(plot(name))
    return ["results/golden/report.json", "--case", "data/golden/case.toml",
            "--samples", "results/golden/samples.json", "--out", "results/golden/report.html"]  # fmt: skip


def test_the_command(case: list[str]) -> None:
    done = CliRunner().invoke(main, case)
    assert (done.exit_code, done.output) == (0, "report: results/golden/report.html\n")
    text = Path(case[-1]).read_text(encoding="utf-8")
    Page(text)
    assert text.count("data:image/png;base64,") == 9 + 4 + 10
    assert CliRunner().invoke(main, case).exit_code == 0
    assert Path(case[-1]).read_text(encoding="utf-8") == text


def test_an_image_that_is_gone_is_a_sentence_in_the_page(case: list[str]) -> None:
    Path("data/golden/images/yes/017.png").unlink()
    Path("data/golden/images/no/006.png").write_bytes(b"broken")
    done = CliRunner().invoke(main, case)
    assert done.exit_code == 0, done.output
    text = Path(case[-1]).read_text(encoding="utf-8")
    assert text.count("cannot be shown: it is gone.") == 2
    assert text.count("cannot be shown: it does not decode.") == 1


def test_a_plot_that_is_missing_is_named(case: list[str]) -> None:
    Path("results/golden/threshold.svg").unlink()
    done = CliRunner().invoke(main, case)
    assert done.exit_code == 1 and not Path(case[-1]).exists()
    assert done.output == (
        "Error: results/golden/threshold.svg is missing; run `make all` to build it.\n"
    )


def test_logits_of_other_samples_are_refused(case: list[str]) -> None:
    np.save("results/golden/torch_fp32.logits.npy", np.zeros(59, np.float32))
    done = CliRunner().invoke(main, case)
    assert (
        done.exit_code == 1 and "There are 59 logits of the reference and 60 labels" in done.output
    )


# ---- in a browser --------------------------------------------------------------------------------

in_browser = pytest.mark.skipif(browser.PROGRAM is None, reason=browser.WHY_NOT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="module")
def written(folder: Path) -> Path:
    """The golden report with a real plot, pictures and names that ask for trouble."""
    import io

    from scripts.report.pictures import svg
    from tests.report.test_plots import deviation

    stream = io.BytesIO()
    Image.effect_mandelbrot((96, 96), (-3, -2.5, 2, 2.5), 40).save(stream, "PNG")
    real = folder / "a.svg"
    report = facts()
    samples = report["variants"]["onnx_fp16"]["flips"]["samples"]
    for flip, name in zip(samples, AWKWARD[-9:], strict=True):
        flip["name"] = name
    done = []

    def drawn(name: str) -> str:
        real.write_text(svg(deviation(300), name), encoding="utf-8")
        done.append(name)
        return read_plot(real)

    out = folder / "report.html"
    out.write_text(page(report, drawn, NEAREST, lambda i: stream.getvalue()), encoding="utf-8")
    assert len(done) > 5
    return out


@in_browser
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [400, 1200])
def test_it_fits_its_window_and_can_be_read(
    written: Path, folder: Path, width: int, dark: bool
) -> None:
    found = browser.measured(written, width, dark, folder)
    assert found["width"] == width and found["content"] <= width
    assert found["texts"] > 500 and found["worst"][0] >= 4.5, found
    assert found["shown"] == 16 and found["broken"] == 0
    assert found["back"] == ("rgb(21, 24, 28)" if dark else "rgb(255, 255, 255)")


@in_browser
def test_what_does_not_fit_or_cannot_be_read_is_found(folder: Path) -> None:
    bad = folder / "bad.html"
    bad.write_text('<!DOCTYPE html><div style="width:900px;color:#999;background:#fff">x</div>')
    found = browser.measured(bad, 400, False, folder)
    assert found["content"] > 400 and found["worst"][0] < 4.5


@in_browser
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [400, 1200])
def test_it_is_drawn(written: Path, folder: Path, width: int, dark: bool) -> None:
    grey = browser.screenshot(written, width, 1500, dark, folder).mean(axis=2)
    assert grey.shape == (1500, width)
    ground = np.median(grey)
    assert ground < 40 if dark else ground > 240
    inked = np.abs(grey - ground) > 100
    assert 0.01 < inked.mean() < 0.4
    assert inked.any(axis=1).mean() > 0.3, "most rows hold something"


@in_browser
def test_the_browser_has_nothing_to_complain_of(written: Path, folder: Path) -> None:
    assert browser.complaints(written, folder) == []
    spoilt = folder / "spoilt.html"
    text = written.read_text(encoding="utf-8")
    spoilt.write_text(text.replace("<body>", "<body><script>1</script>"), encoding="utf-8")
    assert "Content Security Policy" in browser.complaints(spoilt, folder)[0]


@in_browser
def test_on_paper_everything_is_open(written: Path, folder: Path) -> None:
    text = written.read_text(encoding="utf-8")
    pages = browser.printed_pages(written, folder)
    for name, changed in (
        ("open", text.replace("<details>", "<details open>")),
        ("shut", text.replace("details::details-content{", "nothing{")),
    ):
        (folder / f"{name}.html").write_text(changed, encoding="utf-8")
    assert pages == browser.printed_pages(folder / "open.html", folder)
    assert pages > 2 * browser.printed_pages(folder / "shut.html", folder)


def test_the_box_is_green_only_where_a_release_is_allowed() -> None:
    report = facts()
    for code, kind in ((0, "box"), (2, "box warn"), (3, "box warn"), (4, "box warn")):
        report["decision"]["exit"] = code
        assert f'<div class="{kind}">' in html(report)
