"""Settings come from HEATQUERY_*, and .env.example tells the truth about them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from service.__main__ import main
from service.errors import ServiceError
from service.problems import PROBLEMS
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


@pytest.mark.parametrize("keys", ["", "short-secret", "sound-key-of-20-char,short-secret"])
def test_a_wrong_key_is_never_shown(
    keys: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEATQUERY_API_KEYS", keys)
    assert main(["serve"]) == 2
    shown = capsys.readouterr().err
    assert "HEATQUERY_API_KEYS" in shown
    assert "secret" not in shown
    assert "sound" not in shown


def test_keys_are_not_in_the_text_of_settings() -> None:
    assert "0123456789" not in repr(Settings(api_keys=SecretStr("0123456789abcdef")))


def test_a_mounted_secret_sets_a_field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.settings.SECRETS", tmp_path)
    monkeypatch.delenv("HEATQUERY_API_KEYS", raising=False)
    (tmp_path / "heatquery_api_keys").write_text("key-of-alice-0123\nkey-of-bob-012345\n", encoding="utf-8")
    keys = Settings().api_keys
    assert keys is not None
    assert keys.get_secret_value().split() == ["key-of-alice-0123", "key-of-bob-012345"]


def test_a_mounted_secret_that_cannot_be_read_ends_the_start_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("service.settings.SECRETS", tmp_path)
    secret = tmp_path / "heatquery_api_keys"
    secret.write_bytes(b"\xff")  # as good as one without permission, which root does not know
    assert main(["serve"]) == 2
    assert "api_keys" in capsys.readouterr().err


def test_the_environment_goes_before_a_mounted_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.settings.SECRETS", tmp_path)
    monkeypatch.setenv("HEATQUERY_MAX_PIXELS", "123")
    (tmp_path / "heatquery_max_pixels").write_text("456", encoding="utf-8")
    assert Settings().max_pixels == 123


@pytest.mark.parametrize("rate", ["", "20/second", "600 per minute", "5000/day", "3/10 seconds"])
def test_a_rate_is_calls_in_a_time(rate: str) -> None:
    assert Settings(rate_limit=rate).rate_limit == rate


@pytest.mark.parametrize("rate", ["20", "often", "0/second", "-1/second", "1/second;9/minute"])
def test_a_wrong_rate_is_refused_with_an_example(rate: str) -> None:
    with pytest.raises(ValidationError, match="20/second"):
        Settings(rate_limit=rate)


@pytest.mark.parametrize("origins", ["", "https://maps.example", "http://localhost:3000, https://[::1]:8443"])
def test_an_origin_is_a_scheme_and_a_host(origins: str) -> None:
    assert Settings(cors_origins=origins).cors_origins == origins


@pytest.mark.parametrize(
    "origins", ["*", "null", "maps.example", "https://*.example", "https://a.example/", "ftp://a.b"]
)
def test_an_origin_that_is_not_exact_is_refused(origins: str) -> None:
    with pytest.raises(ValidationError, match="not an exact origin"):
        Settings(cors_origins=origins)


@pytest.mark.parametrize("proxies", ["*", "proxy.example", "10.0.0.1/8"])
def test_a_proxy_that_is_no_address_is_refused(proxies: str) -> None:
    with pytest.raises(ValidationError, match="not an address or a network"):
        Settings(proxies=proxies)


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


@pytest.mark.parametrize(("cores", "lanes", "threads"), [(1, 0, 1), (2, 0, 1), (8, 0, 1), (8, 2, 4), (8, 1, 8)])
def test_runs_with_company_share_the_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, lanes: int, threads: int
) -> None:
    monkeypatch.setattr("service.settings.usable_cores", lambda: cores)
    assert Settings(lanes=lanes).threads_beside_others == threads


def test_threads_that_were_asked_for_are_those_of_every_run() -> None:
    assert Settings(threads=3).threads_beside_others == 3
