"""Pictures that were damaged at random, by the hundred; thousands: `tests/helpers/fuzzing.py`."""

from pathlib import Path

import httpx
import pytest
from fuzzing import Outcome, made_pictures, real_pictures, send_damaged

pytestmark = pytest.mark.filterwarnings(r"ignore:::PIL\.")  # as the service does; raised, they would refuse more

REAL = Path(__file__).parents[3] / "shared/data/nwpu-vhr10/images"
INPUTS = 300
ANSWERS = {200, 400, 413, 415, 422}  # 422: a header that claims a size of too many tiles


@pytest.fixture(scope="module")
def outcome(client: httpx.Client) -> Outcome:
    """What came back for damaged pictures that were made here."""
    return send_damaged(client, made_pictures(), INPUTS)


def test_damaged_pictures_are_served_or_refused_as_pictures(outcome: Outcome) -> None:
    assert outcome.failures == []
    assert set(outcome.statuses) <= ANSWERS


def test_the_damage_is_neither_too_little_nor_too_much_to_mean_anything(outcome: Outcome) -> None:
    assert all(outcome.statuses[status] > INPUTS / 50 for status in (200, 400))


def test_damaged_pictures_leave_no_memory_behind(outcome: Outcome) -> None:
    assert outcome.resident[-1] - outcome.resident[0] < 200e6


def test_a_sound_picture_is_served_after_damaged_ones(client: httpx.Client, outcome: Outcome, scene_png: bytes) -> None:
    assert len(client.post("/detect", files={"file": scene_png}).json()["detections"]) == 2


@pytest.mark.skipif(not REAL.is_dir(), reason="needs the pictures of NWPU VHR-10 beside the checkout")
def test_damaged_real_pictures_are_served_or_refused_as_pictures(client: httpx.Client) -> None:
    outcome = send_damaged(client, real_pictures(REAL), 100)
    assert outcome.failures == []
    assert set(outcome.statuses) <= ANSWERS
