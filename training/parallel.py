"""Several processes that train as one: `torchrun --nproc-per-node N -m training fit RECIPE`, one process per GPU.

Each takes its part of every batch; losses are divided by means over all processes, and gradients are averaged, so that
the update is that of one process with the whole batch. accelerate finds the devices and carries the messages.
"""

from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import Tensor, nn
from tqdm import tqdm

from model.detector import Detector

PATIENCE = timedelta(hours=2)
"""How long the others wait for the main process, which alone evaluates and writes checkpoints."""


class Processes:
    """This process among those of the run; alone unless torchrun started it."""

    def __init__(self) -> None:
        # A recipe decides whether every parameter is used in each step: without denoising, the label embedding is not.
        wrapping = DistributedDataParallelKwargs(find_unused_parameters=True)
        meeting = InitProcessGroupKwargs(timeout=PATIENCE)
        self._accelerator = Accelerator(
            cpu=not torch.cuda.is_available(), mixed_precision="no", kwargs_handlers=[wrapping, meeting]
        )
        self.device: torch.device = self._accelerator.device
        self.count: int = self._accelerator.num_processes
        self.rank: int = self._accelerator.process_index
        self.is_main: bool = self._accelerator.is_main_process

    def wrap(self, detector: Detector) -> nn.Module:
        """The detector as it is called in training: after backward, gradients are means over the processes.

        On GPUs, batch norm takes its statistics over the whole batch. On CPUs PyTorch cannot: there each process
        normalises by its own part of the batch, and the running statistics are those of the main process.
        """
        if self.count > 1 and self.device.type == "cuda":
            synchronise_norms(detector)
        return self._accelerator.prepare_model(detector)

    def part(self, batch_size: int) -> range:
        """Rows of each batch that this process takes. Raises ValueError if they cannot be shared evenly."""
        size, left = divmod(batch_size, self.count)
        if left:
            raise ValueError(
                f"run.batch_size {batch_size} cannot be shared by {self.count} processes; "
                f"take a multiple of {self.count}"
            )
        return range(self.rank * size, (self.rank + 1) * size)

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the processes, each of which must call this."""
        reduced = self._accelerator.reduce(values.detach(), reduction="mean")
        assert isinstance(reduced, Tensor)
        return reduced

    def mean_figures(self, figures: dict[str, float]) -> dict[str, float]:
        """The same of named numbers, in one message."""
        if self.count == 1:
            return figures
        values = torch.tensor(list(figures.values()), dtype=torch.float64, device=self.device)
        return dict(zip(figures, self.mean(values).tolist(), strict=True))

    def say(self, text: str) -> None:
        """Print, once, above the bar."""
        if self.is_main:
            tqdm.write(text)

    def part_ways(self) -> None:
        """Wait for the others at the end of a run, and close the connection to them."""
        self._accelerator.wait_for_everyone()
        self._accelerator.end_training()


def synchronise_norms(detector: Detector) -> None:
    """Let batch norms take their statistics over all processes; frozen ones stay as they are."""
    from timm.layers.norm_act import convert_sync_batchnorm  # knows timm's norms with an activation, too

    for parent in list(detector.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d) and child.training:
                setattr(parent, name, convert_sync_batchnorm(child))
