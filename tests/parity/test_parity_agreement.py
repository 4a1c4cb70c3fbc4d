"""Two ways to run one model are compared detection by detection, and a folder is proven again where it will run."""

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.__main__ import main
from export.agreement import LIMITS, Agreement, Host, Tolerance, agree
from export.parity import Report
from export.proof import onnxruntime_host
from export.runtime import Array, Graphs, Runner
from service.manifest import ModelFolderError, load_model_folder

CPU = onnxruntime_host("cpu")


@dataclass(frozen=True)
class Disturbed:
    """A graph whose outputs are changed on the way out."""

    runner: Runner
    change: Callable[[dict[str, Array]], dict[str, Array]]

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        return self.change(self.runner.run(feed))


def against_itself(graphs: Graphs, canvases, change: Callable[[dict[str, Array]], dict[str, Array]]) -> Agreement:
    """The graphs beside themselves with a decoder that is disturbed."""
    disturbed = replace(graphs, decoder=Disturbed(graphs.decoder, change))
    return agree(graphs, disturbed, "fp32", CPU, list(canvases), "synthetic")


def test_graphs_agree_with_themselves(exported, canvases) -> None:
    agreement = against_itself(exported.graphs, canvases, lambda outputs: outputs)
    assert agreement.passed
    assert agreement.matched == agreement.detections > 5
    assert max(agreement.outputs.values()) == agreement.max_box_px == agreement.max_score == 0


def test_boxes_that_moved_have_no_partners(exported, canvases) -> None:
    agreement = against_itself(exported.graphs, canvases, lambda o: o | {"boxes": o["boxes"] + 3})
    assert not agreement.passed
    assert agreement.unmatched == 2 * agreement.detections
    assert agreement.outputs["boxes"] == pytest.approx(3, abs=1e-4)
    assert "without partner" in agreement.line()


def test_a_share_of_lost_detections_is_told(exported, canvases) -> None:
    def lose_some(outputs: dict[str, Array]) -> dict[str, Array]:
        scores = outputs["scores"].copy()
        scores[:, ::2] = 0
        return outputs | {"scores": scores}

    agreement = against_itself(exported.graphs, canvases, lose_some)
    assert not agreement.passed
    assert 0 < agreement.unmatched < agreement.detections


def test_values_that_are_not_finite_are_named(exported, canvases) -> None:
    agreement = against_itself(exported.graphs, canvases[3:], lambda o: o | {"boxes": np.full_like(o["boxes"], np.nan)})
    assert any("boxes: not finite" in failure for failure in agreement.failures)


def test_a_batch_of_equal_pictures_must_give_equal_rows(exported, canvases) -> None:
    def disturb_a_batch(outputs: dict[str, Array]) -> dict[str, Array]:
        rows = np.arange(len(outputs["boxes"]), dtype=np.float32)[:, None, None]
        return outputs | {"boxes": outputs["boxes"] + rows}

    agreement = against_itself(exported.graphs, canvases, disturb_a_batch)
    assert [failure for failure in agreement.failures if "equal pictures in one batch differ by 3 px" in failure]


def test_weak_detections_do_not_hide_that_strong_ones_are_lost(exported, canvases) -> None:
    def scored(strong: int) -> Callable[[dict[str, Array]], dict[str, Array]]:
        def score(outputs: dict[str, Array]) -> dict[str, Array]:
            scores = np.zeros_like(outputs["scores"])
            scores[:, :, 0] = 0.15
            scores[:, :strong, 0] = 0.5
            return outputs | {"scores": scores}

        return score

    reference = replace(exported.graphs, decoder=Disturbed(exported.graphs.decoder, scored(10)))
    candidate = replace(exported.graphs, decoder=Disturbed(exported.graphs.decoder, scored(8)))
    agreement = agree(reference, candidate, "int8", CPU, [canvases[3]], "synthetic")
    assert agreement.unmatched == 2
    assert agreement.matched > 10
    assert "are 11.1% of all" in agreement.failures[0]


def test_a_count_that_is_not_finite_is_named(exported, canvases) -> None:
    broken = Disturbed(exported.graphs.encoder, lambda o: o | {"count": np.full_like(o["count"], np.nan)})
    agreement = agree(exported.graphs, replace(exported.graphs, encoder=broken), "fp32", CPU, canvases, "synthetic")
    assert "count: not finite" in agreement.failures[0]


def test_pictures_without_detections_prove_nothing(exported, canvases) -> None:
    blind = replace(
        exported.graphs, decoder=Disturbed(exported.graphs.decoder, lambda o: o | {"scores": o["scores"] * 0})
    )
    with pytest.raises(ValueError, match="nothing was compared"):
        agree(blind, blind, "fp32", CPU, [canvases[3]], "synthetic")


def test_an_agreement_takes_the_place_of_an_older_one_of_its_host(exported, canvases) -> None:
    good = against_itself(exported.graphs, canvases, lambda outputs: outputs)
    bad = good.model_copy(update={"passed": False, "failures": ["made up"]})
    elsewhere = bad.model_copy(update={"host": Host(runtime="tensorrt", device="a GPU", versions={})})
    report = exported.report.with_agreements([good, elsewhere])
    assert report.passed  # a host heeds the agreements of its own device
    assert not report.with_agreements([bad]).passed
    assert report.with_agreements([bad]).with_agreements([good]).passed
    assert len(report.with_agreements([bad]).agreements) == 2


@pytest.fixture
def folder(exported, tmp_path: Path) -> Path:
    """A copy of the exported folder, with its own graphs as those of fp16, which agree; and two pictures."""
    folder = tmp_path / "models" / "tiny" / "7"
    shutil.copytree(exported.folder, folder)
    change_json(folder / "model.json", lambda content: content["graphs"].update(fp16=content["graphs"]["fp32"]))
    return folder


@pytest.fixture
def pictures(tmp_path: Path, canvases) -> Path:
    (tmp_path / "pictures").mkdir()
    for i, canvas in enumerate(canvases[2:]):
        Image.fromarray(canvas.transpose(1, 2, 0)).save(tmp_path / "pictures" / f"{i}.png")
    return tmp_path / "pictures"


def change_json(path: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def verify(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["export", "verify", *map(str, arguments)])
    main()


def test_verify_writes_what_it_found_and_the_service_believes_it(folder, pictures, monkeypatch, capsys) -> None:
    with pytest.raises(ModelFolderError, match="expected a passed comparison of fp16"):
        load_model_folder(folder, "fp16")
    verify(monkeypatch, folder, "--data", pictures)
    assert "fp16 in onnxruntime on cpu" in capsys.readouterr().out
    report = Report.model_validate_json((folder / "parity.json").read_bytes())
    assert [(a.precision, a.images, a.passed) for a in report.agreements] == [("fp16", 2, True)]
    assert load_model_folder(folder, "fp16").precision == "fp16"


def test_verify_with_the_checkpoint_compares_with_torch_again(exported, folder, pictures, monkeypatch) -> None:
    verify(monkeypatch, folder, "--data", pictures, "--checkpoint", exported.checkpoint)
    report = Report.model_validate_json((folder / "parity.json").read_bytes())
    assert (report.images, report.images_kind, report.passed) == (2, "real", True)
    assert set(report.roads) == set(exported.report.roads)


def test_a_folder_that_differs_says_so_and_is_not_served(folder, pictures, monkeypatch) -> None:
    monkeypatch.setattr("export.agreement.difference", lambda first, second: float("inf"))
    with pytest.raises(SystemExit, match="differs, and its parity"):
        verify(monkeypatch, folder, "--data", pictures)
    with pytest.raises(ModelFolderError, match="expected passed = true"):
        load_model_folder(folder)


def test_tensorrt_that_is_not_there_is_told_in_one_line(folder, pictures, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(SystemExit, match="install the extra `tensorrt`"):
        verify(monkeypatch, folder, "--data", pictures, "--engines", tmp_path / "engines")


def test_unsuitable_pictures_are_no_verdict(folder, pictures, monkeypatch) -> None:
    monkeypatch.setitem(LIMITS, "fp16", Tolerance(threshold=1.0))  # as if nothing on them were known to the model
    before = (folder / "parity.json").read_bytes()
    with pytest.raises(SystemExit, match="choose pictures with objects"):
        verify(monkeypatch, folder, "--data", pictures)
    assert (folder / "parity.json").read_bytes() == before


def test_fp32_alone_has_nothing_to_be_compared_with(exported, pictures, monkeypatch) -> None:
    with pytest.raises(SystemExit, match="give --checkpoint"):
        verify(monkeypatch, exported.folder, "--data", pictures)


def test_graphs_that_files_do_not_list_are_refused(folder, pictures, monkeypatch) -> None:
    pair = {"encoder": "other.onnx", "decoder": "decoder.onnx"}
    change_json(folder / "model.json", lambda content: content["graphs"].update(int8=pair))
    with pytest.raises(SystemExit, match=r"graphs name other\.onnx, which files do not"):
        verify(monkeypatch, folder, "--data", pictures)


def test_a_changed_file_is_not_verified(folder, pictures, monkeypatch) -> None:
    with (folder / "encoder.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(SystemExit, match=r"encoder\.onnx is not the file"):
        verify(monkeypatch, folder, "--data", pictures)


def test_a_checkpoint_of_another_model_is_refused(exported, folder, pictures, monkeypatch) -> None:
    change_json(folder / "model.json", lambda content: content["source"].update(checkpoint_sha256="0" * 64))
    with pytest.raises(SystemExit, match="the graphs come from 0000"):
        verify(monkeypatch, folder, "--data", pictures, "--checkpoint", exported.checkpoint)


def test_a_report_that_cannot_be_read_is_named(folder, pictures, monkeypatch) -> None:
    (folder / "parity.json").write_text("{}", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"parity\.json: passed: Field required"):
        verify(monkeypatch, folder, "--data", pictures)
