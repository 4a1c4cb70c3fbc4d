"""Who may call: the check of a key, where it is looked for, and what needs none."""

import base64

import pytest
from starlette.datastructures import Headers

from service import api_keys
from service.api_keys import ApiKeys, is_open, presented_key
from service.settings import split_keys

KEYS = ["first-key-of-20-char", "second-key-of-21-char"]


def test_each_key_is_found_and_has_a_name_of_its_own() -> None:
    names = [ApiKeys(KEYS).find(key) for key in KEYS]
    assert None not in names
    assert len(set(names)) == 2


@pytest.mark.parametrize("wrong", ["", KEYS[0][:-1], KEYS[0] + " ", KEYS[0].upper(), "\xff" * 20])
def test_a_wrong_key_is_not_found(wrong: str) -> None:
    assert ApiKeys(KEYS).find(wrong) is None


def test_the_name_of_a_key_does_not_give_it_away() -> None:
    name = ApiKeys(KEYS).find(KEYS[0])
    assert name is not None
    assert len(name) < 16
    assert name not in KEYS[0]


@pytest.mark.parametrize("presented", [KEYS[0], KEYS[1], "wrong"])
def test_every_key_is_compared_whichever_fits(presented: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    monkeypatch.setattr(api_keys, "compare_digest", lambda a, b: compared.append((a, b)) or a == b)
    ApiKeys(KEYS).find(presented)
    assert [len(side) for pair in compared for side in pair] == [32] * 4


def test_keys_are_split_at_commas_and_line_ends() -> None:
    assert split_keys(f" {KEYS[0]},\n{KEYS[1]}\n") == KEYS


@pytest.mark.parametrize("text", ["", " ", ",\n,", "too-short", f"{KEYS[0]},short", "k" * 257, "schlüssel-mit-umlaut"])
def test_a_text_without_sound_keys_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match="key") as caught:
        split_keys(text)
    assert not [word for word in ("short", "kkk", "schl", KEYS[0]) if word in str(caught.value)]


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({}, None),
        ({"x-api-key": "k"}, "k"),
        ({"x-api-key": "k", "authorization": "Bearer other"}, "k"),
        ({"authorization": "Bearer k"}, "k"),
        ({"authorization": "bearer  k "}, "k"),
        ({"authorization": "Basic " + base64.b64encode(b"anyone:k").decode()}, "k"),
        ({"authorization": "Basic ?"}, ""),
        ({"authorization": "Digest k"}, None),
        ({"authorization": "Bearer"}, ""),
    ],
)
def test_a_key_comes_in_one_of_three_ways(headers: dict[str, str], key: str | None) -> None:
    assert presented_key(Headers(headers)) == key


@pytest.mark.parametrize("path", ["/", "/livez", "/readyz", "/metrics", "/v2/health/ready", "/docs", "/ui/app.js"])
def test_probes_and_pages_need_no_key(path: str) -> None:
    assert is_open(path)


@pytest.mark.parametrize("path", ["/detect", "/models", "/predict", "/v2/models/x", "/livez/", "//", "/docsx", ""])
def test_all_else_needs_one(path: str) -> None:
    assert not is_open(path)
