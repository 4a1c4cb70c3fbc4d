"""`make audit`: what is known against the packages that we pin, under which licences the service's are, and its SBOM.

Run by the Python of an environment that holds requirements/audit.txt. Exit status: 0 sound, 1 something was found,
2 the vulnerabilities could not be looked up, whatever else was found.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TOOLS = Path(sys.executable).parent
OUT = ROOT / "build" / "audit"

ALLOWED = {
    *("0BSD", "3-Clause BSD License", "BSD", "BSD License", "BSD-2-Clause", "BSD-3-Clause"),
    *("Apache Software License", "Apache-2.0", "CC0-1.0", "ISC", "MIT", "MIT License", "MIT-CMU", "PSF-2.0", "Zlib"),
    *("MPL-2.0", "Mozilla Public License 2.0 (MPL 2.0)"),  # binds changes to its own files, which we do not make
}
"""Licences under which a package may be in the service, as its metadata spells them."""

Package = dict[str, Any]


def requirements() -> list[Path]:
    """Every hashed file: what is served, what is developed with, what is compared with."""
    return sorted([*(ROOT / "requirements").glob("*.txt"), *(ROOT / "benchmarks").glob("requirements-*.txt")])


def main(python: str) -> int:
    """Look everything up, write the reports to build/audit/, and say what came of it.

    Args:
        python: interpreter of the service's environment.
    """
    OUT.mkdir(parents=True, exist_ok=True)
    licences = json.loads(run("pip-licenses", "--python", python, "--from", "mixed", "--format", "json"))
    (OUT / "licences.json").write_text(json.dumps(licences, indent=1) + "\n", encoding="utf-8")
    run("cyclonedx-py", "environment", python, "--pyproject", ROOT / "pyproject.toml", "-o", OUT / "sbom.cdx.json")
    say(f"{len(licences)} packages in the service: licences.json and sbom.cdx.json are in {OUT.relative_to(ROOT)}/")

    faults = forbidden(licences)
    for name in faults:
        say(f"LICENCE  {name}: not in ALLOWED of requirements/audit.py; replace the package, or add it with a reason")
    report = vulnerabilities()
    found, skipped = known_faults(report), unaudited(report)
    for fault in found:
        say(f"VULNERABLE  {fault}")
    if skipped or not report:
        say(f"NOT AUDITED  {len(skipped) or 'all'} pinned packages: PyPI's database of known vulnerabilities cannot be")
        say("reached from here, or does not know them. Run `make audit` where it can be reached.")
        return 2
    say(f"{len(report)} pinned packages looked up, {len(found)} known vulnerabilities")
    return 1 if faults or found else 0


def run(tool: str, *arguments: str | Path) -> str:
    """Output of a tool that must not fail."""
    return subprocess.run([TOOLS / tool, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def vulnerabilities() -> list[Package]:
    """What pip-audit says of each pinned package; nothing where it could not ask at all.

    Its own exit status is not enough: packages that it could not look up count as sound in it.
    """
    files = [argument for path in requirements() for argument in ("-r", str(path))]
    command = [TOOLS / "pip-audit", "--disable-pip", "--progress-spinner", "off", "--format", "json", *files]
    output = subprocess.run(command, check=False, capture_output=True, text=True).stdout
    return json.loads(output)["dependencies"] if output.startswith("{") else []


def known_faults(report: Iterable[Package]) -> list[str]:
    """Package, version, number and the versions in which it is mended, of each known vulnerability."""
    return [
        f"{package['name']} {package['version']}: {fault['id']}, mended in {', '.join(fault['fix_versions']) or 'none'}"
        for package in report
        for fault in package.get("vulns", [])
    ]


def unaudited(report: Iterable[Package]) -> list[str]:
    """Packages that could not be looked up."""
    return [package["name"] for package in report if "skip_reason" in package]


def forbidden(packages: Sequence[Package]) -> list[str]:
    """Packages none of whose offered licences is allowed, each with what its metadata says."""
    return [f"{p['Name']} ({p['License']})" for p in packages if not is_allowed(p["License"])]


def is_allowed(licence: str) -> bool:
    """Whether a package may be used: of `A OR B` one is enough, of `A AND B` and of a list both are needed."""
    return any(
        all(part.strip(" ()") in ALLOWED or part.strip() in ALLOWED for part in re.split(r" AND |;", choice))
        for choice in licence.split(" OR ")
    )


def say(line: str) -> None:
    """A line for a reader, at once."""
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
