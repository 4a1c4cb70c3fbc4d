"""Eight pictures from disk through training, export and a real server process, and back as boxes over HTTP."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image, ImageDraw

import training
from training.loop import fit

SIDE, PICTURES, STEPS = 128, 8, 120
READY_SECONDS = 60
CLASSES = ("vehicle", "storage tank")
OVERRIDES = {
    "strides": [4, 8, 16],
    "width": 32,
    "stem": 8,
    "channels": [16, 24, 32],
    "blocks": [1, 1, 1],
    "k_min": 20,
    "k_max": 60,
    "layers": 1,
    "classes": list(CLASSES),
    "train_size": SIDE,
    "val_size": SIDE,
    "crop": SIDE,
    "scale": [1.0, 1.0],
    "aspect": 1.0,
    "crop_on_object": 0.0,
    "mosaic": 0.0,
    "brightness": 0.0,
    "contrast": 0.0,
    "colour": 0.0,
    "grey": 0.0,
    "noise": 0.0,
    "channel_shuffle": 0.0,
    "position_shift": 0,
    "learning_rate": 2e-3,
    "warmup_steps": 20,
    "ema_decay": 0.97,
    "steps": STEPS,
    "batch_size": PICTURES,
    "precision": "fp32",
    "threads": 0,
    "workers": 0,
    "checkpoint_every": STEPS,
}


@dataclass(frozen=True)
class Server:
    """A running service, and the pictures it should know by heart."""

    client: httpx.Client
    pictures: list[Image.Image]
    boxes: list[np.ndarray]
    labels: list[list[int]]


def draw(rng: np.random.Generator) -> tuple[Image.Image, np.ndarray, list[int]]:
    """Dark ground with one to four light vehicles or tanks that do not touch."""
    ground = rng.normal(70, 8, (SIDE, SIDE, 3)).clip(0, 255).astype(np.uint8)
    picture, boxes, labels = Image.fromarray(ground), [], []
    canvas = ImageDraw.Draw(picture)
    for quadrant in rng.permutation(4)[: rng.integers(1, 5)]:
        width, height = (int(side) for side in rng.integers(14, 34, 2))
        label = int(rng.integers(2))
        height = height if label == 0 else width
        x = int(quadrant % 2 * 64 + rng.integers(4, 60 - width))
        y = int(quadrant // 2 * 64 + rng.integers(4, 60 - height))
        shape = canvas.rectangle if label == 0 else canvas.ellipse
        shape((x, y, x + width - 1, y + height - 1), fill=(220, 210, 200) if label == 0 else (160, 190, 230))
        boxes.append((x, y, x + width, y + height))
        labels.append(label)
    return picture, np.array(boxes, dtype=float), labels


def write_data(folder: Path) -> tuple[list[Image.Image], list[np.ndarray], list[list[int]]]:
    """The pictures as PNG and their boxes in COCO format."""
    drawn = [draw(np.random.default_rng(seed)) for seed in range(PICTURES)]
    (folder / "images").mkdir(parents=True)
    annotations = []
    for i, (picture, boxes, labels) in enumerate(drawn):
        picture.save(folder / "images" / f"{i}.png")
        for (x1, y1, x2, y2), label in zip(boxes.tolist(), labels, strict=True):
            box = [x1, y1, x2 - x1, y2 - y1]
            annotations.append({"id": len(annotations) + 1, "image_id": i, "category_id": label + 1, "bbox": box})
    images = [{"id": i, "file_name": f"{i}.png", "width": SIDE, "height": SIDE} for i in range(PICTURES)]
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(document), encoding="utf-8")
    return [d[0] for d in drawn], [d[1] for d in drawn], [d[2] for d in drawn]


def write_recipe(folder: Path) -> Path:
    """The shipped recipe with a smaller model, this data and no augmentation but flips."""
    text = (Path(training.__file__).parent / "recipes" / "nano-nwpu.toml").read_text(encoding="utf-8")
    text = re.sub(r"classes = \[.*?\n\]", "classes = []", text, flags=re.DOTALL)
    for split in ("train", "val"):
        text = re.sub(rf"(?m)^{split}_images = .*$", f'{split}_images = "images"', text)
        text = re.sub(rf"(?m)^{split}_annotations = .*$", f'{split}_annotations = "instances.json"', text)
    for key, value in OVERRIDES.items():
        text, replaced = re.subn(rf"(?m)^{key} = .*$", f"{key} = {json.dumps(value)}", text)
        assert replaced == 1, key
    recipe = folder / "recipe.toml"
    recipe.write_text(text, encoding="utf-8")
    return recipe


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("first_light")
    pictures, boxes, labels = write_data(folder)
    checkpoint = fit(write_recipe(folder), folder / "run")
    export = [sys.executable, "-m", "export", "build", str(checkpoint), "--out", str(folder / "models" / "tiny" / "1")]
    subprocess.run([*export, "--size", str(SIDE), "--images", str(folder / "images")], check=True)
    command = [sys.executable, "-m", "service", "serve", "--port", "0", "--models", str(folder / "models")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        watchdog = threading.Timer(READY_SECONDS, process.kill)  # a service that is never ready prints no address
        watchdog.start()
        try:
            assert process.stdout is not None
            address = next(line for line in process.stdout if "/docs" in line).split()[-1].removesuffix("/docs")
            watchdog.cancel()
            with httpx.Client(base_url=address, timeout=30) as client:
                yield Server(client, pictures, boxes, labels)
        finally:
            watchdog.cancel()
            process.terminate()


def png(picture: Image.Image) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def iou(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(4,) against (M, 4), xyxy."""
    shared = (np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])).clip(0).prod(1)
    return shared / ((box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(1) - shared)


def test_every_learned_object_is_found_over_http(server: Server) -> None:
    for picture, boxes, labels in zip(server.pictures, server.boxes, server.labels, strict=True):
        answer = server.client.post("/detect", files={"file": png(picture)}, params={"threshold": 0.3})
        assert answer.status_code == 200, answer.text
        found = answer.json()["detections"]
        for box, label in zip(boxes, labels, strict=True):
            same = np.array([d["box"] for d in found if d["class_id"] == label], dtype=float).reshape(-1, 4)
            assert len(same), f"no {CLASSES[label]} in {found}"
            assert iou(box, same).max() > 0.5


def test_the_estimated_count_follows_the_true_one(server: Server) -> None:
    answers = [server.client.post("/detect", files={"file": png(picture)}).json() for picture in server.pictures]
    estimated = [answer["estimated_count"] for answer in answers]
    assert np.corrcoef(estimated, [len(labels) for labels in server.labels])[0, 1] > 0.9


def test_the_heat_map_of_a_detection_is_a_picture_of_the_same_size(server: Server) -> None:
    answer = server.client.post("/detect", files={"file": png(server.pictures[0])}).json()
    params = {"image_id": answer["image_id"], "kind": "class", "legend": "false"}
    heat = server.client.get("/heatmap", params=params)
    assert heat.status_code == 200, heat.text
    assert Image.open(BytesIO(heat.content)).size == (SIDE, SIDE)


def test_class_heat_is_hotter_inside_the_objects_than_outside(server: Server) -> None:
    for picture, boxes in zip(server.pictures, server.boxes, strict=True):
        plain = server.client.post("/heatmap", files={"file": png(picture)}, params={"opacity": 0, "legend": "false"})
        drawn = server.client.post(
            "/heatmap", files={"file": png(picture)}, params={"opacity": 1, "legend": "false", "kind": "class"}
        )
        change = np.abs(_pixels(drawn) - _pixels(plain)).sum(2)
        inside = np.zeros((SIDE, SIDE), dtype=bool)
        for x1, y1, x2, y2 in boxes.astype(int):
            inside[y1:y2, x1:x2] = True
        assert change[inside].mean() > 2 * change[~inside].mean()


def _pixels(answer: httpx.Response) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(answer.content)).convert("RGB"), dtype=float)
