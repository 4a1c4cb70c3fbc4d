"""A model folder that cannot be trusted never becomes ready, and says why."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import httpx
import onnx
import pytest

from service.__main__ import main
from service.manifest import ModelFolderError, find_model_folder, load_model_folder


def edit(folder: Path, name: str, change: Callable[[dict], object]) -> None:
    content = json.loads((folder / name).read_text(encoding="utf-8"))
    change(content)
    (folder / name).write_text(json.dumps(content), encoding="utf-8")


def replace_graph(folder: Path, name: str, data: bytes) -> None:
    """Put other bytes in place of a graph and make both JSON files agree with them."""
    digest = hashlib.sha256(data).hexdigest()
    (folder / name).write_bytes(data)
    edit(
        folder,
        "model.json",
        lambda content: content["files"].update({name: {"sha256": digest, "bytes": len(data)}}),
    )
    edit(folder, "parity.json", lambda content: content["files"].update({name: digest}))


def refusal(folder: Path) -> str:
    with pytest.raises(ModelFolderError) as caught:
        load_model_folder(folder)
    return str(caught.value)


def test_a_sound_folder_loads(model_folder: Path) -> None:
    loaded = load_model_folder(model_folder)
    assert set(loaded.graphs) == {"encoder.onnx", "decoder.onnx"}


def add_int8(folder: Path, passed: bool | None) -> None:
    """Claim that the fp32 graphs are those of int8 too, with a comparison that passed, failed or is missing."""
    edit(folder, "model.json", lambda content: content["graphs"].update(int8=content["graphs"]["fp32"]))
    if passed is not None:
        host = {"runtime": "onnxruntime", "device": "cpu (x86_64)"}
        agreements = [{"precision": "int8", "host": host, "passed": passed}]
        edit(folder, "parity.json", lambda content: content.update(agreements=agreements))


def test_the_precision_that_was_asked_for_is_served(
    make_client: Callable[..., httpx.Client], model_folder: Path
) -> None:
    add_int8(model_folder, passed=True)
    client = make_client(models=model_folder.parent.parent, precision="int8")
    assert client.get("/models/toy").json()["precision"] == "int8"
    assert make_client(models=model_folder.parent.parent).get("/models/toy").json()["precision"] == "fp32"


@pytest.mark.parametrize(("passed", "found"), [(False, "one that failed"), (None, "none")])
def test_a_precision_that_was_not_proven_is_refused(model_folder: Path, passed: bool | None, found: str) -> None:
    add_int8(model_folder, passed)
    with pytest.raises(ModelFolderError, match=f"comparison of int8 with fp32, found {found}"):
        load_model_folder(model_folder, "int8")
    assert load_model_folder(model_folder).precision == "fp32"


def test_a_comparison_that_failed_on_a_gpu_bars_gpus_alone(model_folder: Path) -> None:
    host = {"runtime": "onnxruntime", "device": "NVIDIA T4"}
    agreements = [{"precision": "fp32", "host": host, "passed": False}]
    edit(model_folder, "parity.json", lambda content: content.update(agreements=agreements))
    with pytest.raises(ModelFolderError, match="fp32 differs from the CPU on NVIDIA T4"):
        load_model_folder(model_folder, provider="cuda")
    assert load_model_folder(model_folder).precision == "fp32"


def test_a_precision_that_is_not_there_is_told_what_is(model_folder: Path) -> None:
    with pytest.raises(ModelFolderError, match="HEATQUERY_PRECISION: toy has fp32, not 'fp16'"):
        load_model_folder(model_folder, "fp16")


def test_graphs_that_are_not_listed_are_refused(model_folder: Path) -> None:
    pair = {"encoder": "encoder.fp16.onnx", "decoder": "decoder.onnx"}
    edit(model_folder, "model.json", lambda content: content["graphs"].update(fp16=pair))
    assert "graphs: not in files: encoder.fp16.onnx" in refusal(model_folder)


def test_a_wrong_hash_never_becomes_ready(make_client: Callable[..., httpx.Client], model_folder: Path) -> None:
    graph = model_folder / "decoder.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\x00")
    client = make_client(models=model_folder.parent.parent)
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert "decoder.onnx: expected sha256" in answer.json()["detail"]
    assert client.get("/livez").status_code == 200
    assert client.get("/models").json() == []
    assert client.post("/detect", files={"file": b"x"}).status_code == 503


def test_an_empty_models_folder_never_becomes_ready(make_client: Callable[..., httpx.Client], tmp_path: Path) -> None:
    answer = make_client(models=tmp_path).get("/readyz")
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")


def test_a_gpu_asked_for_and_absent_never_becomes_ready(make_client: Callable[..., httpx.Client]) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has the CUDA provider")
    assert "CUDAExecutionProvider" in make_client(provider="cuda").get("/readyz").json()["detail"]


@pytest.mark.parametrize("name", ["model.json", "parity.json", "encoder.onnx", "decoder.onnx", "detector.onnx"])
def test_a_missing_file_is_named(model_folder: Path, name: str) -> None:
    (model_folder / name).unlink()
    assert refusal(model_folder).startswith(f"{name}: cannot be read")


@pytest.mark.parametrize("name", ["model.json", "parity.json", "encoder.onnx", "decoder.onnx", "detector.onnx"])
def test_an_empty_file_is_named(model_folder: Path, name: str) -> None:
    (model_folder / name).write_bytes(b"")
    assert refusal(model_folder).startswith(f"{name}: expected content, found an empty file")


@pytest.mark.parametrize("name", ["model.json", "parity.json", "encoder.onnx", "decoder.onnx", "detector.onnx"])
def test_a_cut_file_is_named(model_folder: Path, name: str) -> None:
    data = (model_folder / name).read_bytes()
    (model_folder / name).write_bytes(data[: len(data) // 2])
    assert refusal(model_folder).startswith(f"{name}: ")


def test_junk_with_the_right_hash_is_refused(model_folder: Path) -> None:
    replace_graph(model_folder, "encoder.onnx", b"junk, but honestly hashed")
    assert refusal(model_folder).startswith("encoder.onnx: ")


def test_a_cut_graph_with_the_right_hash_is_refused(model_folder: Path, toy_graphs: dict[str, bytes]) -> None:
    replace_graph(model_folder, "encoder.onnx", toy_graphs["encoder.onnx"][:-40])
    assert refusal(model_folder) == "encoder.onnx: the file is cut off"


def test_weights_outside_the_file_are_refused(model_folder: Path, toy_graphs: dict[str, bytes]) -> None:
    graph = onnx.load_from_string(toy_graphs["decoder.onnx"])
    tensor = graph.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../etc/passwd")
    replace_graph(model_folder, "decoder.onnx", graph.SerializeToString())
    assert "external data" in refusal(model_folder)


@pytest.mark.parametrize("name", ["../encoder.onnx", "/etc/passwd", "a/b.onnx", "..", "a\\b.onnx", ".hidden"])
def test_a_file_name_that_leaves_the_folder_is_refused(model_folder: Path, name: str) -> None:
    edit(
        model_folder,
        "model.json",
        lambda content: content["files"].update({name: {"sha256": "0" * 64, "bytes": 1}}),
    )
    assert "is not a plain file name" in refusal(model_folder)


def test_a_failed_parity_is_refused(model_folder: Path) -> None:
    edit(model_folder, "parity.json", lambda content: content.update(passed=False))
    assert "passed" in refusal(model_folder)


def test_a_parity_of_other_graphs_is_refused(model_folder: Path) -> None:
    edit(model_folder, "parity.json", lambda content: content["files"].update({"encoder.onnx": "0" * 64}))
    assert refusal(model_folder).startswith("parity.json: expected encoder.onnx with sha256")


def test_a_parity_without_a_graph_is_refused(model_folder: Path) -> None:
    edit(model_folder, "parity.json", lambda content: content["files"].pop("decoder.onnx"))
    assert "no entry" in refusal(model_folder)


def test_a_missing_key_is_named(model_folder: Path) -> None:
    edit(model_folder, "model.json", lambda content: content["input"].pop("size"))
    assert refusal(model_folder).startswith("model.json: input.size: Field required")


@pytest.mark.parametrize(
    ("part", "key", "value", "said"),
    [
        ("query", "k_min", 99, "k_min 99 is above k_max 16"),
        ("postprocess", "class_thresholds", {"ship": 0.5}, "not a class: ship"),
        ("postprocess", "threshold", 2, "postprocess.threshold"),
        ("input", "size", 150, "strides"),
        ("input", "multiple_of", 16, "input.multiple_of: expected the largest stride, 32, found 16"),
    ],
)
def test_values_that_disagree_are_named(model_folder: Path, part: str, key: str, value: object, said: str) -> None:
    edit(model_folder, "model.json", lambda content: content[part].update({key: value}))
    assert said in refusal(model_folder)


def test_a_folder_under_another_name_is_refused(model_folder: Path) -> None:
    moved = model_folder.parent / "2"
    model_folder.rename(moved)
    assert refusal(moved) == "model.json: expected folder toy/1, found toy/2"


def test_a_graph_with_other_outputs_never_becomes_ready(
    make_client: Callable[..., httpx.Client], model_folder: Path, toy_graphs: dict[str, bytes]
) -> None:
    graph = onnx.load_from_string(toy_graphs["encoder.onnx"])
    graph.graph.output.pop()
    replace_graph(model_folder, "encoder.onnx", graph.SerializeToString())
    detail = make_client(models=model_folder.parent.parent).get("/readyz").json()["detail"]
    assert "missing ['heat_2']" in detail


def test_classes_that_the_graph_does_not_have_never_become_ready(
    make_client: Callable[..., httpx.Client], model_folder: Path
) -> None:
    edit(model_folder, "model.json", lambda content: content["classes"].append("green square"))
    detail = make_client(models=model_folder.parent.parent).get("/readyz").json()["detail"]
    assert "class_heat_0: expected finite values of shape (1, 3, 20, 20)" in detail


def test_the_newest_version_is_served(model_folder: Path) -> None:
    for version in ("2", "9", "10"):
        (model_folder.parent / version).mkdir()
        (model_folder.parent / version / "model.json").touch()
    models = model_folder.parent.parent
    assert find_model_folder(models, None).name == "10"
    assert find_model_folder(models, "toy/9").name == "9"


@pytest.mark.parametrize(("wanted", "said"), [(None, "several models"), ("ship", "found 'ship'"), ("toy/3", "not '3'")])
def test_a_choice_that_is_not_clear_is_refused(model_folder: Path, wanted: str | None, said: str) -> None:
    models = model_folder.parent.parent
    (models / "other" / "1").mkdir(parents=True)
    (models / "other" / "1" / "model.json").touch()
    with pytest.raises(ModelFolderError, match=said):
        find_model_folder(models, wanted)


def test_check_says_that_a_folder_is_sound(model_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(model_folder)]) == 0
    assert "toy/1: sound" in capsys.readouterr().out


def test_check_says_what_is_wrong(model_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (model_folder / "parity.json").unlink()
    assert main(["check", str(model_folder)]) == 1
    assert "parity.json" in capsys.readouterr().err
