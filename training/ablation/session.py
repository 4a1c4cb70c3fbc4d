"""The runs of an ablation: each a process of its own, begun, watched, stopped and resumed."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from training.ablation.grid import Variant, flat_recipe
from training.ablation.results import Figures, Result, check_same, read_results, write_result
from training.ablation.table import write_table
from training.config import Recipe
from training.tracking import RunFolder, steps_done, write_whole

POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Run:
    """One variant with one seed."""

    variant: Variant
    seed: int
    folder: Path
    """`runs/VARIANT-SEED` in the ablation's folder."""
    threads: int

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def steps(self) -> int:
        """Length of the run."""
        return self.variant.recipe.run.steps

    def recipe(self) -> Recipe:
        """The variant's recipe with the run's own seed and threads."""
        own = self.variant.recipe.run.model_copy(update={"seed": self.seed, "threads": self.threads})
        return self.variant.recipe.model_copy(update={"run": own})

    def prepare(self) -> None:
        """Write the recipe. Raises ValueError if the folder holds a run of another one."""
        begun_as, recipe = self.folder / "recipe.json", self.recipe()
        if begun_as.exists():
            check_same(begun_as, json.loads(begun_as.read_text(encoding="utf-8")), flat_recipe(recipe))
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(begun_as, json.dumps(flat_recipe(recipe)))
        write_whole(self.folder / "recipe.toml", recipe.to_toml())

    def saved(self) -> int:
        """Steps up to the newest checkpoint."""
        checkpoint = RunFolder(self.folder).latest() if self.folder.exists() else None
        return 0 if checkpoint is None else steps_done(checkpoint)

    def logged(self) -> int:
        """Steps up to the newest entry of the run's log."""
        log = self.folder / "metrics.jsonl"
        lines = log.read_text(encoding="utf-8").splitlines(keepends=True) if log.exists() else []
        return max((json.loads(line)["step"] for line in lines[-2:] if line.endswith("\n")), default=0)

    def result(self) -> Result:
        """What the run's process has written down when it ended."""
        figures = Figures.model_validate_json((self.folder / "figures.json").read_bytes())
        variant, recipe = self.variant, flat_recipe(self.recipe())
        return Result(
            variant=variant.name,
            seed=self.seed,
            steps=self.steps,
            changes=variant.changes,
            recipe=recipe,
            figures=figures,
        )


def worker(run: Run) -> list[str]:
    """The command that trains and measures a run."""
    return [sys.executable, "-m", "training.ablation.run", str(run.folder)]


@contextmanager
def claimed(folder: Path) -> Iterator[int]:
    """Hold a folder's lock, whose descriptor its runs inherit: it stays locked while any of them lives.

    Raises:
        ValueError: another ablation, or a run that outlived its own, is at work there.
    """
    with (folder / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another ablation is at work in {folder}; wait for it, or take another --out") from None
        yield lock.fileno()


class Job:
    """A run at work."""

    def __init__(self, run: Run, command: list[str], lock: int) -> None:
        run.prepare()
        self.run = run
        self.saved_at_deadline: int | None = None
        self.stopped = False
        environment = os.environ | {"OMP_NUM_THREADS": str(run.threads), "TQDM_DISABLE": "1"}
        with (run.folder / "log.txt").open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, pass_fds=[lock])

    def stop_at_checkpoint(self) -> None:
        """To be called again and again: ends the process once it has written a checkpoint that is not its last."""
        saved = self.run.saved()
        if self.saved_at_deadline is None:
            self.saved_at_deadline = saved
        elif self.saved_at_deadline < saved < self.run.steps:
            self.stop()

    def stop(self) -> None:
        self.stopped = True
        self.process.terminate()
        self.process.wait()

    def last_words(self) -> str:
        """Last line of the run's log."""
        lines = (self.run.folder / "log.txt").read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "no message")


class Session:
    """One call of `ablate`: starts runs, watches them, and keeps the table up to date; plots are drawn at the end."""

    def __init__(
        self,
        out: Path,
        variants: Sequence[Variant],
        keep: bool,
        deadline: float | None,
        command: Callable[[Run], list[str]],
        lock: int,
    ) -> None:
        self.out, self.variants, self.keep, self.deadline = out, variants, keep, deadline
        self.command, self.lock = command, lock
        self.failures: list[str] = []

    @property
    def late(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    def carry_out(self, runs: Sequence[Run], jobs: int) -> None:
        """Carry out some runs, a few at a time. Raises ChildProcessError at the end if any failed."""
        waiting, working = list(runs), list[Job]()
        done = {run.name: run.saved() for run in runs}
        total = sum(run.steps for run in runs)
        try:
            with tqdm(total=total, initial=sum(done.values()), unit="step", smoothing=0.02, mininterval=2) as bar:
                while working or (waiting and not self.late):
                    while waiting and len(working) < jobs and not self.late:
                        run = waiting.pop(0)
                        working.append(Job(run, self.command(run), self.lock))
                    time.sleep(POLL_SECONDS)
                    begun, working = working, [job for job in working if not self._ended(job)]
                    done |= {job.run.name: job.run.logged() for job in begun}
                    bar.set_description(", ".join(job.run.name for job in working) or "ablation", refresh=False)
                    bar.update(sum(done.values()) - bar.n)
        finally:
            for job in working:
                job.stop()
        if waiting:
            tqdm.write(f"out of time: {len(waiting)} runs are not begun; the same command goes on")
        if self.failures:
            raise ChildProcessError(f"{len(self.failures)} of {len(runs)} runs failed: {'; '.join(self.failures)}")

    def _ended(self, job: Job) -> bool:
        """Whether a job is over, after doing what is due then."""
        if job.process.poll() is None:
            if self.late:
                job.stop_at_checkpoint()
            return job.stopped
        if job.process.returncode:
            self.failures.append(f"{job.run.name} ({job.last_words()}; see {job.run.folder / 'log.txt'})")
            return True
        result = job.run.result()
        write_result(self.out, result)
        tqdm.write(f"{job.run.name}: AP {result.figures.metrics['ap'] or 0:.3f}")
        if not self.keep:
            shutil.rmtree(job.run.folder / "checkpoints")
        write_table(self.out, self.variants, read_results(self.out, self.variants))
        return True
