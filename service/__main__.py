"""`python -m service` with the commands serve, detect, check and bench."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import SettingsError

from service.bench.command import BenchOptions, bench
from service.bench.command import add_arguments as add_bench_arguments
from service.engines.onnx import EngineLoadError, OnnxEngine
from service.errors import ServiceError
from service.loading import begin_loading
from service.manifest import ModelFolderError, load_model_folder
from service.scenes.options import DetectOptions
from service.scenes.options import add_arguments as add_detect_arguments
from service.settings import Settings, is_secret


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    options = vars(_parser().parse_args(given))
    command = options.pop("command")
    if command == "bench":
        return bench(BenchOptions(**options))
    if command == "check":
        return check(options["model_dir"])
    if command == "detect":
        return detect(options, given)
    settings = _settings(options)
    if settings is None:
        return 2
    return serve(settings)


def detect(options: dict[str, Any], given: Sequence[str]) -> int:
    """Find objects in scenes, without a server."""
    settings = _settings({"models": options.pop("models"), "model": options.pop("model"), "threads": 1})
    if settings is None:
        return 2
    if settings.provider == "tensorrt":
        print("detect runs on CUDA: TensorRT is tried against it in a service only", file=sys.stderr)
    from service.scenes import command  # with GDAL, for which a starting server would wait

    return command.detect(DetectOptions(**options), settings, given)


def _settings(options: Mapping[str, Any]) -> Settings | None:
    """The environment with what the command line says; None, and why on standard error, where it means nothing."""
    try:
        return Settings(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        for item in error.errors():
            name = "_".join(str(part) for part in item["loc"])
            got = "" if is_secret(name) else f" (got {item['input']!r})"
            where = f"HEATQUERY_{name.upper()}: " if name else ""
            print(f"{where}{item['msg']}{got if name else ''}", file=sys.stderr)
    except SettingsError as error:  # a file with a secret that this user may not read, say
        print(f"{error}: {error.__cause__}", file=sys.stderr)
    return None


def serve(settings: Settings) -> int:
    """Serve until a signal comes; the model is loaded while the web framework is imported."""
    loading = begin_loading(settings) if settings.workers == 1 else None
    from service import server

    try:
        server.serve(settings, loading)
    except server.ListenError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # uvicorn has shut down in order and raises it again
        return 130
    return 0


def check(folder: Path) -> int:
    """Verify, load and warm up one model folder, and say what it is or what is wrong with it."""
    try:
        loaded = load_model_folder(folder.resolve())
        engine = OnnxEngine(loaded)
        engine.check_outputs()
    except (ModelFolderError, EngineLoadError, ServiceError) as error:
        print(f"{folder}: {error}", file=sys.stderr)
        return 1
    manifest = loaded.manifest
    print(f"{manifest.name}/{manifest.version}: sound; {len(manifest.classes)} classes, {engine.provider}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m service", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    serving = commands.add_parser("serve", help="serve a model over HTTP; see .env.example for every setting")
    serving.add_argument("--host", help="address to listen on")
    serving.add_argument("--port", type=int, help="port to listen on; 0 takes a free one")
    serving.add_argument("--workers", type=int, help="processes, for CPUs with many cores")
    serving.add_argument("--models", type=Path, help="folder that holds <name>/<version>/")
    serving.add_argument("--model", help="model to serve: name or name/version")
    checking = commands.add_parser("check", help="verify one model folder")
    checking.add_argument("model_dir", type=Path, help="<models>/<name>/<version>")
    benching = commands.add_parser("bench", help="measure a running service under load, at fixed rates of arrival")
    add_bench_arguments(benching)
    detecting = commands.add_parser("detect", help="find objects in pictures of any size, without a server")
    add_detect_arguments(detecting)
    return parser


if __name__ == "__main__":
    sys.exit(main())
