"""Promises that the repository makes about itself: what is installed, what may import what, what CI runs."""

import ast
import os
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("model", "training", "export", "service")
REQUIREMENTS = ("audit", "build", "dev", "docs", "ray", "serve", "serve-gpu", "train", "uv")
EXTRAS = {
    "serve": ("service",),
    "ray": ("service/scale_out",),
    "client": ("service/client", "service/bench/chart.py"),
    "train": ("training", "model"),
    "export": ("export", "model"),
}
"""Each extra and the folders whose imports it must cover, no more and no less; an inner folder only by its own."""
PROVIDERS = {
    "PIL": "pillow",
    "yaml": "pyyaml",
    "opentelemetry": "opentelemetry-sdk",  # which pins the API that it goes with
    "opentelemetry.exporter": "opentelemetry-exporter-otlp-proto-http",
}
"""Distribution of a module whose name is another one."""
NEEDED_BY_TORCH = {"tensorboard", "onnxscript"}
"""Listed though only torch imports them, behind torch.utils.tensorboard and torch.onnx."""

NEEDED_BY_UVICORN = {"uvloop"}
"""Listed though only uvicorn imports it, as `service/server.py` tells it to."""


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    """The parsed pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def read_requirements(name: str) -> str:
    """Text of one requirements file."""
    return (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")


def pinned_versions(name: str) -> dict[str, str]:
    """Package to version, of one requirements file."""
    return dict(re.findall(r"^([\w.-]+)==([^\s;]+)", read_requirements(name), re.MULTILINE))


def stage_sources() -> Iterator[tuple[Path, str]]:
    """Path and text of every Python file of the four packages."""
    for stage in STAGES:
        for path in sorted((ROOT / stage).rglob("*.py")):
            yield path, path.read_text(encoding="utf-8")


def sources_of(extra: str) -> Iterator[Path]:
    """Python files of an extra, without those in an inner folder that belongs to another."""
    folders = {folder for listed in EXTRAS.values() for folder in listed}
    for folder in EXTRAS[extra]:
        inner = [ROOT / other for other in folders if other.startswith(f"{folder}/")]
        for path in (ROOT / folder).rglob("*.py") if (ROOT / folder).is_dir() else [ROOT / folder]:
            if not any(path.is_relative_to(other) for other in inner):
                yield path


def imported_modules(source: str) -> Iterator[str]:
    """Full names of the modules that a source file imports, at any depth."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def distribution_of(module: str) -> str:
    """What must be installed for a module to be there."""
    parts = module.split(".")
    names = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    return next((PROVIDERS[name] for name in names if name in PROVIDERS), parts[0].replace("_", "-"))


def make_recipe(target: str) -> list[str]:
    """Command lines of one Makefile target."""
    lines = (ROOT / "Makefile").read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"{target}:"))
    return [line.strip() for line in lines[start + 1 : lines.index("", start)]]


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_requirements_name_no_host_and_no_path_of_a_machine(name: str) -> None:
    assert not re.search(
        r"://|--(extra-)?index-url|--find-links|--trusted-host| @ |^\s*/|[\w-]+\.(org|com|io|net)\b",
        read_requirements(name),
        re.MULTILINE,
    )


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_every_requirement_is_pinned_and_hashed(name: str) -> None:
    text = re.sub(r"^\s*#.*\n?", "", read_requirements(name), flags=re.MULTILINE).replace("\\\n", " ")
    entries = text.splitlines()
    assert entries
    for entry in entries:
        assert re.fullmatch(r"[\w.\[\],-]+==[\w.+!]+( ; [^\\]+?)?(\s+--hash=sha256:[0-9a-f]{64})+", entry), entry


def test_there_is_no_requirements_file_beyond_the_checked_ones() -> None:
    assert sorted(path.stem for path in (ROOT / "requirements").glob("*.txt")) == sorted(REQUIREMENTS)


@pytest.mark.parametrize("name", [name for name in REQUIREMENTS if name not in ("dev", "uv")])
def test_versions_are_those_that_the_tests_run_with(name: str) -> None:
    tested = pinned_versions("dev")
    differing = {k: v for k, v in pinned_versions(name).items() if tested.get(k, v) != v}
    assert not differing


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_lists_what_its_stages_import_and_nothing_else(project: dict[str, Any], extra: str) -> None:
    modules = {module for path in sources_of(extra) for module in imported_modules(path.read_text(encoding="utf-8"))}
    known = {*sys.stdlib_module_names, *STAGES}
    imported = {distribution_of(module) for module in modules if module.partition(".")[0] not in known}
    listed = {re.split(r"[\[<>=]", item)[0] for item in project["project"]["optional-dependencies"][extra]}
    assert listed - NEEDED_BY_TORCH - NEEDED_BY_UVICORN == imported


@pytest.mark.parametrize("name", ["serve", "serve-gpu"])
def test_the_service_environment_has_no_torch(name: str) -> None:
    assert not {"torch", "torchvision", "triton"} & pinned_versions(name).keys()


def test_torch_and_torchvision_are_the_chosen_pair() -> None:
    versions = pinned_versions("dev")
    assert (versions["torch"], versions["torchvision"]) == ("2.12.1", "0.27.1")


def test_the_serve_extras_exclude_each_other(project: dict[str, Any]) -> None:
    assert [{"extra": "serve"}, {"extra": "serve-gpu"}] in project["tool"]["uv"]["conflicts"]
    assert "onnxruntime-gpu" not in pinned_versions("serve")
    assert "onnxruntime" not in pinned_versions("serve-gpu")


def test_the_serve_extras_differ_in_the_runtime_only(project: dict[str, Any]) -> None:
    extras = project["project"]["optional-dependencies"]
    gpu = {name.replace("onnxruntime-gpu", "onnxruntime") for name in extras["serve-gpu"]}
    assert gpu == set(extras["serve"])


def test_exactly_the_four_stages_are_packaged(project: dict[str, Any]) -> None:
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == list(STAGES)


@pytest.mark.parametrize(
    ("stage", "forbidden"),
    [
        ("model", {"training", "export", "service"}),
        ("training", {"export", "service"}),
        ("export", {"training", "service"}),
        ("service", {"model", "training", "export", "torch", "torchvision"}),
    ],
)
def test_an_import_contract_guards_each_stage(project: dict[str, Any], stage: str, forbidden: set[str]) -> None:
    contracts = project["tool"]["importlinter"]["contracts"]
    contract = next(contract for contract in contracts if contract["source_modules"] == [stage])
    assert contract["type"] == "forbidden"
    assert set(contract["forbidden_modules"]) >= forbidden
    assert "ignore_imports" not in contract


def test_no_test_folder_is_a_package() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_no_two_test_files_have_the_same_name() -> None:
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert not [name for name, count in names.items() if count > 1]


def test_nothing_unpickles() -> None:
    modules = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
    calls = re.compile(
        r"\btorch\.(jit\.load|package)\b|\btorch\.load\((?![^)]*weights_only=True)|\b(pandas|pd)\.read_pickle\b"
        r"|allow_pickle\s*=\s*True|weights_only\s*=\s*False|\byaml\.(unsafe_|full_)?load(_all)?\("
    )
    benchmarks = ((path, path.read_text(encoding="utf-8")) for path in (ROOT / "benchmarks").rglob("*.py"))
    for path, source in chain(stage_sources(), benchmarks):
        assert not modules & {module.partition(".")[0] for module in imported_modules(source)}, path
        assert not calls.search(source), path


def test_ci_is_executable_and_stops_at_the_first_failure() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in script.read_text(encoding="utf-8")


def test_ci_ends_with_the_test_command_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").split("\n")
    commands = [line.replace(" --no-print-directory", "") for line in script if line.startswith("make ")]
    assert commands == ["make lint", "make container-test", "make test"]
    assert commands[-1] in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()


def test_lint_covers_style_format_types_and_import_rules() -> None:
    tools = [line.removeprefix(".venv/bin/") for line in make_recipe("lint")]
    dockerfiles = "hadolint docker/serve.Dockerfile docker/train.Dockerfile"
    assert tools == ["ruff check", "ruff format --check", "pyright", "lint-imports --no-logo", dockerfiles]


def test_the_service_listens_on_the_loopback_unless_told_otherwise() -> None:
    assert "\nHOST :=\n" in (ROOT / "Makefile").read_text(encoding="utf-8")  # not taken from the shell
    assert "\nHEATQUERY_HOST=127.0.0.1\n" in (ROOT / ".env.example").read_text(encoding="utf-8")


def test_the_licence_is_the_whole_apache_text() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert text.count("\n") == 202
    assert "TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION" in text
    assert "APPENDIX: How to apply the Apache License to your work." in text


@pytest.mark.parametrize("page", sorted(path.name for path in (ROOT / "docs" / "decisions").glob("0*.md")))
def test_a_decision_has_its_four_parts_and_a_place_in_the_index(page: str) -> None:
    folder = ROOT / "docs" / "decisions"
    headings = re.findall(r"^## (.+)$", (folder / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert {part for heading in headings for part in heading.lower().split(" and ")} == {
        "context",
        "decision",
        "evidence",
        "consequences",
    }
    assert f"]({page})" in (folder / "README.md").read_text(encoding="utf-8")


def test_links_between_the_documents_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "benchmarks").glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} -> {target}"


def test_every_page_has_a_place_on_the_site() -> None:
    conf = ast.parse((ROOT / "docs" / "conf.py").read_text(encoding="utf-8"))
    values = {ast.unparse(node.targets[0]): node.value for node in conf.body if isinstance(node, ast.Assign)}
    contents, parts = (ast.literal_eval(values[name]) for name in ("CONTENTS", "PARTS"))
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")]
    names = {path.relative_to(ROOT).with_suffix("").as_posix() for path in pages} - {"README"}
    below = {name for name in names for pattern in parts.values() if fnmatchcase(name, pattern)}
    assert {page for listed in contents.values() for page in listed} == names - below


def ablation_variants() -> set[str]:
    """Names of the rows of the ablation on NWPU VHR-10."""
    return set(tomllib.loads((ROOT / "training/ablation/grids/nwpu.toml").read_text(encoding="utf-8"))["variants"])


def test_every_row_of_the_ablation_is_measured() -> None:
    results = (ROOT / "docs/ablation").glob("nwpu*/results/*.json")
    assert ablation_variants() == {path.stem.rsplit("-", 1)[0] for path in results}


def test_every_row_of_the_ablation_stands_beside_a_module() -> None:
    modules = (ROOT / "docs/model.md").read_text(encoding="utf-8").split("## Modules")[1].split("\n## ")[0]
    measured = [line.split("|")[-2] for line in modules.splitlines() if line.startswith("|")]
    assert ablation_variants() - {"baseline"} <= set(re.findall(r"`([\w-]+)`", " ".join(measured)))
