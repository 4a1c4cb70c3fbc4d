"""Everything an operator can set, read from `HEATQUERY_*` environment variables."""

import os
import re
from ipaddress import ip_network
from pathlib import Path
from tempfile import gettempdir
from typing import Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import AnyHttpUrl, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SecretsSettingsSource, SettingsConfigDict

from service.cores import usable_cores

# Pillow itself refuses a picture above twice its own limit, so a higher gate would promise too much.
PILLOW_HARD_LIMIT = 178_956_970
# Where compose and Kubernetes mount secrets: the file heatquery_api_keys is the setting HEATQUERY_API_KEYS, and so on.
SECRETS = Path("/run/secrets")
MIN_KEY_CHARACTERS = 16
LogLevel = Literal["debug", "info", "warning", "error"]
_KEY = re.compile(rf"[!-~]{{{MIN_KEY_CHARACTERS},256}}")
_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:]+\](:[0-9]{1,5})?")


class Settings(BaseSettings):
    """Frozen and checked at construction; built by the command line or a test, never at import."""

    model_config = SettingsConfigDict(env_prefix="HEATQUERY_", frozen=True, extra="forbid", hide_input_in_errors=True)

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    models: Path = Field(
        default=Path(__file__).parent / "models",
        description="Folder that holds <name>/<version>/ model folders.",
    )
    model: str | None = Field(
        default=None,
        description="Model to serve, as name or name/version; empty: the only one there is, newest version.",
    )
    provider: Literal["cpu", "cuda", "tensorrt"] = Field(
        default="cpu",
        description="Where the graphs run; never falls back in silence. tensorrt: on cuda, until its engines are built "
        "and have found the same objects in the first pictures that come.",
    )
    engines: Path | None = Field(
        default=None, description="Folder that TensorRT keeps its engines in; who can write there can run code here."
    )
    precision: Literal["fp32", "fp16", "int8"] = Field(
        default="fp32", description="Which of the model's graphs to run; int8 is the fast one on a CPU."
    )
    threads: int = Field(
        default=0,
        ge=0,
        le=256,
        description="Threads inside one graph run; 0: every core this process may use, or a share of them where runs "
        "have company.",
    )
    workers: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Processes, each with a model of its own and its share of the cores; for CPUs. On a GPU: 1.",
    )
    lanes: int = Field(
        default=0,
        ge=0,
        le=64,
        description="Graphs that run at the same time in a process; 0: one for each of its cores on a CPU, 2 at least; "
        "2 on a GPU.",
    )
    batch: int = Field(
        default=0,
        ge=0,
        le=64,
        description="Most pictures in one run of a graph; 0: 1 on a CPU, where more does not pay, 8 on CUDA, 4 with "
        "TensorRT.",
    )
    batch_wait_seconds: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="How long an incomplete batch waits for company; 0: never, it takes what has come meanwhile.",
    )
    picture_threads: int = Field(
        default=2, ge=1, le=64, description="Threads that read, resize and draw pictures in a process."
    )
    queue: int = Field(
        default=32, ge=1, le=10_000, description="Calls inside a process at once; a further one gets 429."
    )
    max_tiles: int = Field(
        default=256, ge=1, le=10_000, description="Most tiles that one picture may be cut in by tile=."
    )
    max_upload_bytes: int = Field(default=32 * 1024**2, ge=1, description="Largest request body in bytes.")
    max_pixels: int = Field(
        default=100_000_000,
        ge=1,
        le=PILLOW_HARD_LIMIT,
        description="Largest picture in pixels, checked before decoding.",
    )
    deadline_seconds: float = Field(
        default=30.0, gt=0, description="Longest wait plus work of one call; beyond it 504."
    )
    drain_seconds: float = Field(
        default=1.0, ge=0, description="Between a stop signal (not ready from then on) and the last call taken."
    )
    body_seconds: float = Field(default=20.0, gt=0, description="Longest time a request body may take to arrive.")
    header_seconds: float = Field(default=10.0, gt=0, description="Longest time a request head may take to arrive.")
    reader_seconds: float = Field(
        default=30.0, ge=1, description="Longest time a client may leave an answer unread before its connection closes."
    )
    connections: int = Field(
        default=512, ge=1, description="Open connections of one process; a further one gets 503 and is closed."
    )
    api_keys: SecretStr | None = Field(
        default=None,
        description="Keys that callers must present, separated by commas or white space; unset: open to everyone.",
    )
    rate_limit: str = Field(
        default="", description="Expensive calls that one key, or else one address, may make: 20/second; empty: any."
    )
    cors_origins: str = Field(
        default="",
        description="Web origins whose pages may call, separated by commas: https://maps.example; empty: none.",
    )
    proxies: str = Field(
        default="",
        description="Addresses or networks of reverse proxies, separated by commas, whose X-Forwarded-For and "
        "X-Forwarded-Proto are believed: 10.0.0.0/8; empty: nobody's.",
    )
    store: SecretStr = Field(
        default=SecretStr("memory"),
        description="Where results for GET /heatmap are kept: memory (of this process), or a Redis that all replicas "
        "share, as redis://, rediss:// (TLS) or unix:// with user, password and database as redis-py takes them.",
    )
    store_seconds: float = Field(
        default=0.25, gt=0, description="Longest time a call waits for an answer of Redis before it goes on without."
    )
    heat_store_bytes: int = Field(
        default=128 * 1024**2,
        ge=0,
        description="Memory for results that GET /heatmap can still draw; in Redis the largest result.",
    )
    heat_ttl_seconds: float = Field(default=600.0, gt=0, description="How long such a result is kept.")
    scenes: Path | None = Field(
        default=None,
        description="Folder where scenes and what was found in them are kept, shared by all processes of a service; "
        "empty: a private one in the system's folder for temporary files.",
    )
    max_scene_bytes: int = Field(default=8 * 1024**3, ge=1, description="Largest body of POST /scenes in bytes.")
    scene_queue: int = Field(
        default=8, ge=0, description="Scenes that are worked on or wait at once; a further one gets 429; 0: none."
    )
    scene_disk_bytes: int = Field(
        default=32 * 1024**3, ge=1, description="Most bytes of scenes kept at once; a further one gets 507."
    )
    scene_hours: float = Field(
        default=24.0, gt=0, description="How long a scene is kept after it is done, failed or cancelled."
    )
    log_level: LogLevel = Field(
        default="info", description="Least level of log lines: debug, info, warning or error; debug adds probes."
    )
    otlp_endpoint: AnyHttpUrl | None = Field(
        default=None, description="Base URL of an OpenTelemetry collector (OTLP/HTTP); empty: no traces are made."
    )
    view_side: int = Field(default=1280, ge=64, le=8192, description="Longest side in pixels of a drawn heat map.")

    @field_validator("store")
    @classmethod
    def _known_store(cls, store: SecretStr) -> SecretStr:
        """Refuse an address that means nothing, without repeating it: it may hold a password."""
        if not _is_store(store.get_secret_value()):
            raise ValueError("must be memory, or redis://HOST, rediss://HOST or unix:///PATH with what redis-py takes")
        return store

    @field_validator("api_keys")
    @classmethod
    def _sound_keys(cls, keys: SecretStr | None) -> SecretStr | None:
        """Refuse an empty text: a secret that failed to arrive must not open the service."""
        if keys is not None:
            split_keys(keys.get_secret_value())
        return keys

    @field_validator("rate_limit")
    @classmethod
    def _known_rate(cls, rate: str) -> str:
        """Refuse also two rates at once, and none at all."""
        if not rate:
            return rate
        from limits import parse_many  # a quarter of a second to import: not for those without rates

        try:
            (limit,) = parse_many(rate)
        except ValueError:
            limit = None
        if limit is None or limit.amount < 1:
            raise ValueError("is not a rate; write 20/second, 600/minute or 5000/day")
        return rate

    @field_validator("cors_origins")
    @classmethod
    def _exact_origins(cls, origins: str) -> str:
        for origin in split_list(origins):
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"{origin!r} is not an exact origin; write https://maps.example or http://localhost:3000"
                )
        return origins

    @field_validator("proxies")
    @classmethod
    def _known_networks(cls, proxies: str) -> str:
        for network in split_list(proxies):
            try:
                ip_network(network)
            except ValueError as error:
                raise ValueError(f"{network!r} is not an address or a network; write 10.0.0.7 or 10.0.0.0/8") from error
        return proxies

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        """What several processes need, results that all can find and a device that they can share; and engines."""
        if self.workers > 1 and self.store.get_secret_value() == "memory":
            raise ValueError(
                f"HEATQUERY_WORKERS={self.workers}: processes share no memory, so GET /heatmap would not find what "
                "another one saw; set HEATQUERY_STORE=redis://..., or take one worker"
            )
        if self.provider == "tensorrt" and self.engines is None:
            raise ValueError("HEATQUERY_PROVIDER=tensorrt: name a folder for its engines in HEATQUERY_ENGINES")
        if self.workers > 1 and self.provider != "cpu":
            raise ValueError(f"HEATQUERY_WORKERS={self.workers}: take one process for each GPU")
        return self

    @property
    def cores(self) -> int:
        """What a process may use of the machine."""
        return max(1, usable_cores() // self.workers)

    @property
    def lane_count(self) -> int:
        """Graphs that run at the same time. Two at least: one may wait for memory while another computes."""
        return self.lanes or (max(2, self.cores) if self.provider == "cpu" else 2)

    @property
    def threads_beside_others(self) -> int:
        """Threads inside a graph run that has company. On a GPU, as inside a lone one."""
        if self.threads or self.provider != "cpu":
            return self.threads or self.cores
        return max(1, self.cores // self.lane_count)

    @property
    def batch_size(self) -> int:
        """Most pictures in one run of a graph. TensorRT is reported to go wrong in large batches (decision 0015)."""
        return self.batch or {"cpu": 1, "cuda": 8, "tensorrt": 4}[self.provider]

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments first, then the environment, then files with secrets, where the folder is there."""
        if not SECRETS.is_dir():
            return init_settings, env_settings
        return init_settings, env_settings, SecretsSettingsSource(settings_cls, secrets_dir=SECRETS)


def scenes_folder(settings: Settings) -> Path:
    """Where scenes are kept: the same for every process of one user, so that they go on after a restart."""
    return settings.scenes or Path(gettempdir()) / f"heatquery-scenes-{os.getuid()}"


def split_list(text: str) -> list[str]:
    """The items of a setting that is a list separated by commas."""
    return [item.strip() for item in text.split(",") if item.strip()]


def split_keys(text: str) -> list[str]:
    """The keys in a text, separated by commas or white space, so that a file may have one a line.

    Raises:
        ValueError: no key, or one that is no good; the message does not repeat it.
    """
    keys = [key for key in re.split(r"[\s,]+", text) if key]
    if not keys:
        raise ValueError("is set but holds no key; unset it for a service that is open to everyone")
    for position, key in enumerate(keys, 1):
        if not _KEY.fullmatch(key):
            raise ValueError(
                f"key {position} of {len(keys)} is not of {MIN_KEY_CHARACTERS} to 256 printable ASCII characters; "
                "make one with: openssl rand -hex 32"
            )
    return keys


def is_secret(name: str) -> bool:
    """Whether the value of this setting must never be shown."""
    kind = Settings.model_fields[name].annotation if name in Settings.model_fields else None
    return SecretStr in (kind, *get_args(kind))


def _is_store(text: str) -> bool:
    try:
        url = urlsplit(text)
        host, _ = url.hostname, url.port  # both fail on what is no address
    except ValueError:
        return False
    match url.scheme:
        case "redis" | "rediss":
            return bool(host)
        case "unix":
            return len(url.path) > 1
        case _:
            return text == "memory"
