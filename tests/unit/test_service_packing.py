"""A result as bytes: nothing is lost on the way, and bytes from elsewhere are refused before they cost anything."""

import json
import struct
import tracemalloc
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from results import make_result
from service.analysis import Analysis
from service.packing import MAX_HEAD_BYTES, CorruptResultError, pack_result, unpack_result

PACKED = pack_result(make_result(b"picture"))


def arrays(result: Analysis) -> list[np.ndarray]:
    maps = result.maps
    return [maps.density, result.boxes, result.scores, *maps.class_heat, *maps.heat]


def with_header(**changes: Any) -> bytes:
    """The packed result with another header."""
    magic, length = struct.unpack_from("<4sI", PACKED)
    text = json.dumps({**json.loads(PACKED[8 : 8 + length]), **changes}).encode()
    return struct.pack("<4sI", magic, len(text)) + text + PACKED[8 + length :]


def test_every_array_comes_back_as_it_was() -> None:
    result = make_result(b"picture")
    for kept, read in zip(arrays(result), arrays(unpack_result(pack_result(result))), strict=True):
        assert kept.dtype == read.dtype
        assert np.array_equal(kept, read)


def test_everything_else_comes_back_as_it_was() -> None:
    result = make_result(b"picture")
    read = unpack_result(pack_result(result))
    names = {field.name for field in fields(Analysis)} - {"boxes", "scores", "maps"}
    assert {name: getattr(read, name) for name in names} == {name: getattr(result, name) for name in names}


@pytest.mark.parametrize("result", [make_result(b""), make_result(b"picture", queries=0), make_result(b"x", classes=1)])
def test_a_result_with_nothing_in_one_part_comes_back(result: Analysis) -> None:
    assert [array.shape for array in arrays(unpack_result(pack_result(result)))] == [
        array.shape for array in arrays(result)
    ]


def test_the_bytes_are_those_of_the_result_and_a_small_head() -> None:
    result = make_result(b"picture" * 1000)
    assert 0 < len(pack_result(result)) - result.nbytes < 1000 < MAX_HEAD_BYTES


@pytest.mark.parametrize("length", [0, 3, 7, 8, 50, 1000, len(PACKED) - 1])
def test_a_cut_value_is_refused(length: int) -> None:
    with pytest.raises(CorruptResultError):
        unpack_result(PACKED[:length])


@pytest.mark.parametrize(
    "changes",
    [
        {"queries": 2**31 - 1, "classes": 2**31 - 1},
        {"density": [65_536, 65_536]},
        {"density": [-1, 20]},
        {"density": [2**80, 1]},
        {"levels": [[1, 1]] * 9},
        {"levels": []},
        {"queries": 4},
        {"frame": {"width": 0, "height": 0, "new_width": 1, "new_height": 1, "size": 160}},
        {"frame": {"width": 10**400, "height": 240, "new_width": 160, "new_height": 120, "size": 160}},
        {"image_id": "0" * 32},
        {"estimated_count": float("nan")},
        {"more": 1},
    ],
)
def test_a_header_that_does_not_fit_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(CorruptResultError):
        unpack_result(with_header(**changes))


@pytest.mark.parametrize("value", [b"HQR2" + PACKED[4:], b"HQR1\xff\xff\xff\xff{}", b"HQR1\x02\0\0\0[]", b"\x80\x05."])
def test_a_value_of_somebody_else_is_refused(value: bytes) -> None:
    with pytest.raises(CorruptResultError):
        unpack_result(value)


def test_a_value_that_is_not_a_number_is_refused() -> None:
    result = make_result(b"picture")
    with pytest.raises(CorruptResultError, match="not a number"):
        unpack_result(pack_result(replace(result, boxes=np.full((5, 4), np.nan, np.float32))))


def test_claimed_sizes_allocate_nothing() -> None:
    value = with_header(queries=65_536, classes=65_536)  # 17 GB of scores
    tracemalloc.start()
    with pytest.raises(CorruptResultError):
        unpack_result(value)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


@given(position=st.integers(0, len(PACKED) - 1), byte=st.integers(0, 255))
def test_one_wrong_byte_gives_a_result_or_is_refused(position: int, byte: int) -> None:
    value = bytearray(PACKED)
    value[position] = byte
    try:
        read = unpack_result(bytes(value))
    except CorruptResultError:
        return
    assert [array.shape for array in arrays(read)] == [array.shape for array in arrays(make_result(b"picture"))]
