"""What images are made of, and that the files of docker/ agree on it."""

import re
import tomllib
from collections import defaultdict
from pathlib import Path

from service.settings import Settings

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
SERVE, TRAIN = DOCKER / "serve.Dockerfile", DOCKER / "train.Dockerfile"
OTHERS = ("python", "nvidia/cuda", "redis", "prom/prometheus", "grafana/grafana", "caddy")


def texts() -> dict[Path, str]:
    """The files that an operator runs or reads."""
    files = [path for path in DOCKER.rglob("*") if path.is_file() and path.suffix != ".json"]
    return {path: path.read_text(encoding="utf-8") for path in (*files, ROOT / "docs" / "deploy.md")}


def test_every_setting_that_is_named_exists() -> None:
    known = {f"HEATQUERY_{name.upper()}" for name in Settings.model_fields}
    for path, text in texts().items():
        assert set(re.findall(r"\bHEATQUERY_[A-Z]+(?:_[A-Z]+)*\b", text)) <= known, path


def test_an_image_of_others_has_one_full_version_everywhere() -> None:
    versions: dict[str, set[str]] = defaultdict(set)
    for text in texts().values():
        for name, version in re.findall(rf"(?<![\w/])({'|'.join(OTHERS)}):(v?\d+\.[\w.-]+)", text):
            versions[name].add(version)
    assert versions.keys() == set(OTHERS)
    for name, found in versions.items():
        assert len(found) == 1, (name, found)
        assert re.match(r"v?\d+\.\d+\.\d+", found.pop()), name


def test_labels_tell_the_version_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for path in (SERVE, TRAIN):
        text = path.read_text(encoding="utf-8")
        assert f'image.version="{project["version"]}"' in text
        assert f'image.licenses="{project["license"]}"' in text


def test_images_run_as_a_user_without_a_name() -> None:
    for path in (SERVE, TRAIN):
        assert re.findall(r"^USER (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE) == ["10001:10001"]


def test_nothing_is_installed_without_its_hash() -> None:
    for path in (SERVE, TRAIN):
        installs = re.findall(r"\bpip (?:install|sync)\b[^&]*", path.read_text(encoding="utf-8"))
        assert len(installs) == 2
        assert all("--require-hashes" in install for install in installs)


def test_a_build_sees_only_what_it_copies() -> None:
    allowed = {
        line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line.startswith("!")
    }
    copied = {
        source.rstrip("/")
        for path in (SERVE, TRAIN)
        for source in re.findall(r"^COPY (?!--)(\S+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert allowed == copied
