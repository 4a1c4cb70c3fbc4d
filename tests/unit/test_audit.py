"""`make audit`: what counts as allowed, as found, and as not looked up."""

import pytest

import audit


@pytest.mark.parametrize(
    "licence",
    ["MIT", "Apache-2.0 OR GPL-3.0-only", "BSD-3-Clause AND 0BSD AND MIT", "Apache Software License; MIT License"],
)
def test_a_licence_that_can_be_met_with_allowed_ones_is_taken(licence: str) -> None:
    assert audit.is_allowed(licence)


@pytest.mark.parametrize("licence", ["UNKNOWN", "", "AGPL-3.0", "MIT AND GPL-3.0-only", "MIT License; GPL"])
def test_a_licence_of_which_a_needed_part_is_not_allowed_is_refused(licence: str) -> None:
    assert not audit.is_allowed(licence)


def test_a_forbidden_package_is_named_with_its_licence() -> None:
    packages = [{"Name": "good", "License": "MIT"}, {"Name": "bad", "License": "AGPL-3.0"}]
    assert audit.forbidden(packages) == ["bad (AGPL-3.0)"]


def test_a_known_vulnerability_is_told_with_the_way_out() -> None:
    fault = {"id": "PYSEC-1", "fix_versions": ["2.1"], "aliases": []}
    report = [{"name": "old", "version": "2.0", "vulns": [fault]}, {"name": "new", "version": "1", "vulns": []}]
    assert audit.known_faults(report) == ["old 2.0: PYSEC-1, mended in 2.1"]


def test_a_package_that_could_not_be_looked_up_does_not_count_as_sound() -> None:
    report = [{"name": "a", "version": "1", "vulns": []}, {"name": "b", "skip_reason": "not found"}]
    assert audit.unaudited(report) == ["b"]


def test_every_hashed_file_is_audited() -> None:
    names = {path.name for path in audit.requirements()}
    assert {"serve.txt", "serve-gpu.txt", "dev.txt", "docs.txt", "audit.txt", "requirements-peers.txt"} <= names
