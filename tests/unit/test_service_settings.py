"""Settings come from HEATQUERY_*, and .env.example tells the truth about them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from service.__main__ import main
from service.errors import PROBLEMS, ServiceError
from service.settings import Settings

ROOT = Path(__file__).parents[2]


def example() -> dict[str, str]:
    """The lines of .env.example; a commented one is a setting without a default."""
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    pairs = [line.removeprefix("#").split("=", 1) for line in lines if line.removeprefix("#").startswith("HEATQUERY_")]
    return dict(pairs)


def test_env_example_lists_every_setting() -> None:
    assert list(example()) == [f"HEATQUERY_{name.upper()}" for name in Settings.model_fields]


def test_env_example_gives_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("HEATQUERY_")]:
        monkeypatch.delenv(name)
    defaults = Settings()
    for name, value in example().items():
        default = getattr(defaults, name.removeprefix("HEATQUERY_").lower())
        if isinstance(default, Path):
            assert default == ROOT / value
        elif isinstance(default, SecretStr):
            assert default.get_secret_value() == value, name
        elif default is not None:
            assert str(default) == value, name


def test_the_environment_sets_a_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEATQUERY_MAX_PIXELS", "123")
    assert Settings().max_pixels == 123


@pytest.mark.parametrize(
    "wrong",
    [
        {"provider": "tpu"},
        {"max_pixels": 200_000_000},
        {"workers": 0},
        {"deadline_seconds": 0},
        {"nothing": 1},
    ],
)
def test_a_wrong_setting_is_refused(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        Settings(**wrong)


def test_the_command_line_names_a_wrong_setting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEATQUERY_QUEUE", "many")
    assert main(["serve"]) == 2
    assert "HEATQUERY_QUEUE" in capsys.readouterr().err


@pytest.mark.parametrize(
    "store",
    [
        "memory",
        "redis://localhost",
        "redis://:word@localhost:6379/1",
        "rediss://user:word@cache:6380/0?ssl_cert_reqs=required",
        "unix:///run/redis.sock?db=1",
        "unix://user:word@/run/redis.sock",
    ],
)
def test_a_known_store_is_taken(store: str) -> None:
    assert Settings(store=SecretStr(store)).store.get_secret_value() == store


@pytest.mark.parametrize(
    "store",
    ["", "Memory", "redis://", "redis:/host", "redis://:wo/rd@host", "http://:word@host", "unix://", "unix://word"],
)
def test_an_unknown_store_is_refused_without_repeating_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], store: str
) -> None:
    monkeypatch.setenv("HEATQUERY_STORE", store)
    assert main(["serve"]) == 2
    message = capsys.readouterr().err
    assert "HEATQUERY_STORE" in message
    assert "word" not in message


def test_the_settings_do_not_show_a_password() -> None:
    assert "word" not in repr(Settings(store=SecretStr("redis://:word@localhost")))


def test_every_error_has_a_place_in_the_table() -> None:
    assert set(ServiceError.__subclasses__()) == set(PROBLEMS)


def test_the_service_imports_without_torch() -> None:
    script = (
        "import sys\n"
        "for name in ('torch', 'torchvision', 'model', 'training', 'export', 'onnx'):\n"
        "    sys.modules[name] = None\n"
        "import service.app, service.__main__\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", script], cwd=ROOT, check=True, timeout=60)
