"""docker/compose.yaml: sound, locked down, and of one mind with the service and the image."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from service.server import GRACE_SECONDS
from service.settings import Settings

DOCKER = Path(__file__).parents[2] / "docker"
VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")


@cache
def compose(name: str = "compose.yaml") -> dict[str, Any]:
    """A compose file as it reads where nothing is set; `!reset` takes a part of the other file away."""
    text = VARIABLE.sub(r"\2", (DOCKER / name).read_text(encoding="utf-8"))
    return yaml.safe_load(text.replace("!reset ", ""))


def service_settings() -> dict[str, Any]:
    """What compose.yaml tells the service."""
    return compose()["services"]["heatquery"]["environment"]


@pytest.mark.parametrize("name", ["compose.yaml", "compose.cpu.yaml"])
def test_a_compose_file_follows_the_specification(name: str) -> None:
    PyCompose.from_json(json.dumps(compose(name))).validate()


def test_the_cpu_file_changes_only_what_is_there() -> None:
    changed, whole = compose("compose.cpu.yaml")["services"]["heatquery"], compose()["services"]["heatquery"]
    assert changed.keys() <= whole.keys()
    assert changed["environment"].keys() <= whole["environment"].keys()
    assert changed["build"]["args"].keys() == whole["build"]["args"].keys()


def test_the_cpu_file_asks_for_no_gpu() -> None:
    assert "reservations: !reset null" in (DOCKER / "compose.cpu.yaml").read_text(encoding="utf-8")
    assert compose()["services"]["heatquery"]["deploy"]["resources"]["reservations"]["devices"]


@pytest.mark.parametrize("name", compose()["services"])
def test_a_container_has_a_read_only_root_no_capabilities_and_limits(name: str) -> None:
    service = compose()["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service.get("cap_add", []) == (["NET_BIND_SERVICE"] if name == "caddy" else [])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert {"memory", "pids"} <= service["deploy"]["resources"]["limits"].keys()


@pytest.mark.parametrize("name", [name for name in compose()["services"] if name != "caddy"])
def test_only_the_proxy_is_published_beyond_the_loopback(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in compose()["services"][name].get("ports", []))


def test_what_is_mounted_from_the_repository_is_there() -> None:
    for service in compose()["services"].values():
        sources = [volume.split(":")[0] for volume in service.get("volumes", [])]
        assert all((DOCKER / source).exists() for source in sources if source.startswith("."))


def test_the_env_file_explains_every_variable_and_no_other() -> None:
    used = {name for file in DOCKER.glob("compose*.yaml") for name, _ in VARIABLE.findall(file.read_text())}
    explained = set(re.findall(r"^#(\w+)=", (DOCKER / ".env.example").read_text(encoding="utf-8"), re.MULTILINE))
    of_compose_itself = {"COMPOSE_FILE", "COMPOSE_PROFILES"}
    assert explained - of_compose_itself - {name for name in explained if name.startswith("HEATQUERY_")} == {
        name for name in used if not name.startswith("HEATQUERY_")
    }


def test_the_service_takes_what_compose_tells_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in service_settings().items():
        monkeypatch.setenv(name, str(value))
    settings = Settings()
    assert settings.provider == "tensorrt"
    assert settings.proxies == compose()["networks"]["inside"]["ipam"]["config"][0]["subnet"]


def test_folders_that_the_service_writes_are_volumes_that_the_image_prepares() -> None:
    mounted = {volume.split(":")[1] for volume in compose()["services"]["heatquery"]["volumes"]}
    prepared = (DOCKER / "serve.Dockerfile").read_text(encoding="utf-8")
    for name in ("HEATQUERY_SCENES", "HEATQUERY_ENGINES"):
        assert service_settings()[name] in mounted
        assert service_settings()[name] in prepared


def test_a_stop_leaves_time_for_the_calls_in_flight() -> None:
    grace = int(compose()["services"]["heatquery"]["stop_grace_period"].removesuffix("s"))
    assert grace > GRACE_SECONDS + Settings.model_fields["drain_seconds"].default


def test_prometheus_and_the_proxy_ask_where_the_service_listens() -> None:
    alias = compose()["services"]["heatquery"]["networks"]["inside"]["aliases"][0]
    address = f"{alias}:{service_settings()['HEATQUERY_PORT']}"
    scrape = yaml.safe_load((DOCKER / "prometheus.yml").read_text(encoding="utf-8"))
    assert scrape["scrape_configs"][0]["static_configs"] == [{"targets": [address]}]
    assert f"reverse_proxy {address}\n" in (DOCKER / "Caddyfile").read_text(encoding="utf-8")
