"""README.md, CONTRIBUTING.md and the Makefile say what is true."""

import re
import shutil

import pytest

from tests.project import ROOT, Project

README = (ROOT / "README.md").read_text()
COMMANDS = [
    line.partition("#")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.strip().splitlines()
]
# These run in this very suite, or alone on a quiet machine.
ELSEWHERE = {"make test", "make test FAST=yes", "make bench", "make serve"}
COMPARED = [
    "python3 -m scripts.release.decide_release results/digits/report.json", "cp -r results/digits before",
    "make compare OLD=before/report.json",
]  # fmt: skip
ON_A_GPU_HOST = ["make doctor MODE=docker GPU=yes"]


def test_the_readme_has_commands() -> None:
    assert {"make all", "make gate", "make help", *COMPARED, "make new CASE=mask", "make doctor", "make serve", *ELSEWHERE, *ON_A_GPU_HOST,
            "make images -n MODE=docker"} == set(COMMANDS)  # fmt: skip


@pytest.mark.parametrize("command", ON_A_GPU_HOST)
def test_a_command_for_a_gpu_host_says_what_is_missing_here(
    project: Project, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    done = project.run(*command.split())
    assert done.returncode == 2, done.stdout
    assert re.search(
        r"^FAIL  The Docker daemon does not answer: .+ Needed: a running Docker daemon\.",
        done.stdout,
        re.M,
    )


@pytest.mark.parametrize(
    "command",
    [line for line in COMMANDS if line not in ("make all", "make gate", *COMPARED, *ON_A_GPU_HOST)],
)
def test_a_command_of_the_readme_runs(project: Project, command: str) -> None:
    if command in ELSEWHERE:
        command += " -n"
        shutil.copytree(ROOT / "tests", project.folder / "tests", dirs_exist_ok=True)
    done = project.run(*command.split())
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_gate_of_the_bundled_case_ends_as_the_readme_says(digits: Project) -> None:
    done = digits.run(*COMPARED[0].split())
    assert done.returncode == 4, done.stdout + done.stderr
    assert "0 of 899 samples flip under any condition" in done.stdout
    made = digits.make("gate")
    assert made.returncode == 2
    assert done.stdout in made.stdout


def test_a_copy_of_the_results_is_compared_as_the_readme_says(digits: Project) -> None:
    for command in COMPARED[1:]:
        done = digits.run(*command.split())
        assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout
    shutil.rmtree(digits.folder / "before")


def test_every_file_of_the_table_is_made(digits: Project) -> None:
    rows = re.findall(r"^\| `(results|model_repository)/(.*?)`", README, re.MULTILINE)
    assert len(rows) >= 11
    for folder, name in rows:
        pattern = name.replace("<case>", "digits").replace("<variant>", "onnx_fp16")
        assert list(digits.folder.glob(f"{folder}/{pattern}")), name


def test_links_and_pictures_exist() -> None:
    for document in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        text = (ROOT / document).read_text()
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            assert (ROOT / target).exists(), f"{document}: {target}"


def test_contributing_names_scripts_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = re.findall(r"`scripts/([\w/]+\.py)`", text)
    assert named
    for name in named:
        assert (ROOT / "scripts" / name).is_file(), name
