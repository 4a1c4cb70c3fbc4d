"""GET /metrics over HTTP."""

import socket
from collections.abc import Callable

import httpx
import pytest

from metrics_page import samples

MakeClient = Callable[..., httpx.Client]


def read(client: httpx.Client) -> dict[str, float]:
    """Every sample now."""
    return samples(client.get("/metrics").content)


def counted(page: dict[str, float], route: str, status: int, method: str = "GET") -> float:
    """Requests so far under one template."""
    return page.get(f"heatquery_request_seconds_count{{method={method}}}{{route={route}}}{{status={status}}}", 0)


def test_a_call_counts_under_its_template_method_and_status(client: httpx.Client, scene_png: bytes) -> None:
    before = counted(read(client), "/detect", 200, "POST")
    assert client.post("/detect", files={"file": scene_png}).status_code == 200
    assert counted(read(client), "/detect", 200, "POST") == before + 1


def test_a_path_with_a_name_in_it_counts_under_its_template(client: httpx.Client) -> None:
    before = counted(read(client), "/models/{name}", 404)
    client.get("/models/zeppelin")
    page = read(client)
    assert counted(page, "/models/{name}", 404) == before + 1
    assert not [name for name in page if "zeppelin" in name]


def test_paths_that_callers_make_up_share_one_series(client: httpx.Client) -> None:
    before = counted(read(client), "other", 404)
    for number in range(20):
        client.get(f"/made-up/{number}")
    page = read(client)
    assert counted(page, "other", 404) == before + 20
    assert not [name for name in page if "made-up" in name]


def test_an_error_of_a_handler_is_counted_by_its_code(client: httpx.Client) -> None:
    name = "heatquery_rejected_total{reason=undecodable-image}"
    before = read(client).get(name, 0)
    client.post("/detect", files={"file": b"\xff\xd8\xff nothing of a picture"})
    assert read(client)[name] == before + 1


def test_a_refusal_before_the_app_is_counted_by_its_code(make_client: MakeClient, scene_png: bytes) -> None:
    client = make_client(max_upload_bytes=100)
    assert client.post("/detect", files={"file": scene_png}).status_code == 413
    assert read(client)["heatquery_rejected_total{reason=body-too-large}"] == 1


def test_a_refusal_on_the_connection_is_counted_by_its_code(make_client: MakeClient) -> None:
    client = make_client()
    address = (client.base_url.host, client.base_url.port or 0)
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(b"this is not HTTP\r\n\r\n")
        assert connection.recv(12) == b"HTTP/1.1 400"
    assert read(client)["heatquery_rejected_total{reason=malformed-request}"] == 1


def test_an_error_of_ours_is_counted_as_internal(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, scene_png: bytes
) -> None:
    client = make_client()

    def fail(*_: object) -> None:
        raise KeyError

    with monkeypatch.context() as patch:
        patch.setattr("service.predictor.Letterbox.fit", fail)
        client.post("/detect", files={"file": scene_png})
    page = read(client)
    assert (page["heatquery_rejected_total{reason=internal}"], counted(page, "/detect", 500, "POST")) == (1, 1)


def test_bytes_of_bodies_are_measured(make_client: MakeClient, scene_png: bytes) -> None:
    client = make_client()
    client.post("/detect", content=scene_png, headers={"Content-Type": "image/png"})
    assert read(client)["heatquery_request_body_bytes_sum{method=POST}{route=/detect}"] == len(scene_png)


def test_a_picture_is_measured_stage_by_stage(make_client: MakeClient, scene_png: bytes) -> None:
    client = make_client()
    answer = client.post("/detect", files={"file": scene_png}).json()
    page = read(client)
    for stage in ("queue", "preprocess", "encode", "decode", "postprocess"):
        assert page[f"heatquery_stage_seconds_count{{stage={stage}}}"] == 1
    encode_ms = page["heatquery_stage_seconds_sum{stage=encode}"] * 1e3
    assert encode_ms == pytest.approx(answer["timing_ms"]["encode"], abs=0.01)


def test_queries_count_and_detections_of_a_picture_are_measured(make_client: MakeClient, scene_png: bytes) -> None:
    client = make_client()
    answer = client.post("/detect", files={"file": scene_png}).json()
    page = read(client)
    assert page["heatquery_query_count_sum"] == answer["query_count"]
    assert page["heatquery_estimated_count_sum"] == pytest.approx(answer["estimated_count"], abs=0.01)
    assert page["heatquery_detections_sum"] == len(answer["detections"]) == 2


def test_runs_of_the_graphs_are_counted_by_their_size(make_client: MakeClient, scene_png: bytes) -> None:
    client = make_client()
    client.post("/detect", files={"file": scene_png})
    page = read(client)
    assert [page[f"heatquery_batch_size_sum{{stage={stage}}}"] for stage in ("encode", "decode")] == [1, 1]
    assert [page[f"heatquery_queue_depth{{stage={stage}}}"] for stage in ("encode", "decode")] == [0, 0]


def test_the_model_that_answers_is_named(client: httpx.Client) -> None:
    page = read(client)
    model = client.get("/models").json()[0]
    labels = {name: model[name] for name in ("name", "precision", "provider", "sha256", "version")}
    assert page["heatquery_model_info" + "".join(f"{{{key}={value}}}" for key, value in labels.items())] == 1
    assert page["heatquery_ready"] == 1


def test_a_service_without_a_model_is_not_ready(make_client: MakeClient) -> None:
    assert read(make_client(model="absent"))["heatquery_ready"] == 0


def test_memory_and_time_of_the_process_are_there(client: httpx.Client) -> None:
    page = read(client)
    assert page["process_resident_memory_bytes"] > 1e7
    assert page["process_cpu_seconds_total"] > 0


def test_open_metrics_is_given_where_it_is_asked_for(client: httpx.Client) -> None:
    answer = client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.text.endswith("# EOF\n")


def test_an_accept_header_that_means_nothing_gets_plain_text(client: httpx.Client) -> None:
    answer = client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=one"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")


def test_results_that_are_kept_and_looked_up_are_counted(make_client: MakeClient, scene_png: bytes) -> None:
    client = make_client()
    image_id = client.post("/detect", files={"file": scene_png}).json()["image_id"]
    client.get("/heatmap", params={"image_id": image_id})
    client.get("/heatmap", params={"image_id": "0" * 32})
    page = read(client)
    assert page["heatquery_store_entries"] == 1
    assert page["heatquery_store_bytes"] > len(scene_png)
    assert [page[f"heatquery_store_lookups_total{{outcome={outcome}}}"] for outcome in ("hit", "miss")] == [1, 1]


def test_a_result_that_is_not_kept_is_counted(make_client: MakeClient, scene_png: bytes) -> None:
    client = make_client(heat_store_bytes=1)
    client.post("/detect", files={"file": scene_png})
    assert read(client)["heatquery_store_lost_total"] == 1
