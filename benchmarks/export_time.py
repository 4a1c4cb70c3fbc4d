"""Time `python -m export build` as users run it, with its comparisons on real pictures, and say how long it took.

    python benchmarks/export_time.py training/checkpoints/nano-nwpu --data FOLDER

CPU time is that of the whole program, which other work on the machine hardly lengthens.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.book_result import Row, write_rows

AIM_S = 120
SIZE = 544
"""Side of the canvas of the model that ships."""


def main() -> None:
    """Time both exports and print what they took."""
    parser = argparse.ArgumentParser(description="Time an export.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder with images/ and instances_{train,val}.json")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
    options = parser.parse_args()
    rows = [
        *timed(options.checkpoint, options.data, "fp32"),
        *timed(options.checkpoint, options.data, "fp32 fp16 int8"),
    ]
    for row in rows:
        print(f"{row.claim}: {row.measured}")
    if options.json:
        write_rows(options.json, rows)


def timed(checkpoint: Path, data: Path, precisions: str) -> list[Row]:
    """Seconds of the clock and of CPU time that an export takes."""
    what = f"export of {checkpoint.name}, {precisions.replace(' ', ', ')}, from the command to the folder"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "export", "build", str(checkpoint), "--out", f"{folder}/{checkpoint.name}/1"]
        command += ["--size", str(SIZE), "--images", str(data / "instances_val.json"), "--precisions"]
        command += [*precisions.split(), "--calibration", str(data / "instances_train.json")]
        before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, check=True, stdout=sys.stderr)
        wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return [
        Row(claim=what, value=round(wall, 1), unit="s", at_most=AIM_S),
        Row(claim=f"{what}: CPU time", value=round(cpu, 1), unit="s"),
    ]


if __name__ == "__main__":
    main()
