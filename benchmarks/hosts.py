"""Time and memory of a training step of D3Q's hosts: forward and backward on pictures that need unequal queries.

    python benchmarks/hosts.py dino_d3q_r50 --size 800 --batch 2 --json host.json

Weights are random, pictures are noise; the objective is a sum over every output, so that all of the network takes
part. The losses of training are left out: they cost little beside a host, and none of the memory.
"""

import argparse
import json
import platform
import resource
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor

from model.config import DetectorConfig
from model.detector import Detector
from model.presets import preset, without_density
from model.structures import Denoising, DetectorOutput

HOSTS = ("dino_d3q_r50", "deformable_detr_d3q_r50")
AI_TOD = ("airplane", "bridge", "storage-tank", "ship", "swimming-pool", "vehicle", "person", "wind-mill")
GIB = 2**30


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write the figures where asked."""
    options = _parser().parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    config = host_config(options.preset, options.fixed_queries, checkpointing=not options.no_checkpointing)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    detector = Detector(config).to(device).train()
    count_nothing(detector)
    counts = torch.linspace(options.fewest, options.most, options.batch, device=device).round()
    steps = [measure(detector, options.size, counts, options.denoising) for _ in range(options.steps)]
    figures = {
        "preset": options.preset,
        "parameters": sum(p.numel() for p in detector.parameters()),
        "machine": machine(device),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "size": options.size,
        "batch": options.batch,
        "checkpointing": config.decoder.checkpointing,
        "true_counts": counts.int().tolist(),
        "peak_gib": peak_bytes(device) / GIB,
        "steps": steps,
    }
    print(report(figures))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def host_config(name: str, fixed_queries: bool, checkpointing: bool) -> DetectorConfig:
    """A preset, changed as asked.

    Args:
        fixed_queries: turn D3Q off; every picture gets k_max queries.
    """
    config = preset(name, AI_TOD)
    if fixed_queries:
        config = without_density(config, config.query.k_max)
    return config.model_copy(update={"decoder": config.decoder.model_copy(update={"checkpointing": checkpointing})})


def count_nothing(detector: Detector) -> None:
    """Let an untrained density head find no object, so that the true counts decide on the number of queries."""
    if detector.density_head is not None:
        *_, last, _ = detector.density_head.layers
        with torch.no_grad():
            last.get_parameter("bias").fill_(-12.0)


def measure(detector: Detector, size: int, true_counts: Tensor, denoising: int) -> dict:
    """One forward and backward pass on noise.

    Args:
        true_counts: (B,), objects of each picture: a picture gets at least 1.5 queries for each.
        denoising: denoising queries beside the real ones.
    Returns:
        Seconds, queries of each picture, and the norm of the gradient.
    """
    batch, device = len(true_counts), true_counts.device
    images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, device=device)
    detector.zero_grad(set_to_none=True)
    start = now(device)
    output = detector(images, noised(batch, denoising, device), true_counts)
    middle = now(device)
    total(output).backward()
    end = now(device)
    gradients = [p.grad for p in detector.parameters() if p.grad is not None]
    norm = float(torch.stack([gradient.norm() for gradient in gradients]).norm())
    if not norm < float("inf"):
        raise FloatingPointError(f"the gradient is {norm}: this host does not train")
    return {
        "forward_s": middle - start,
        "backward_s": end - middle,
        "queries": output.queries.valid.sum(1).tolist(),
        "gradient_norm": norm,
    }


def total(output: DetectorOutput) -> Tensor:
    """A number that depends on every output."""
    layers = [*output.layers, *output.denoising_layers]
    parts = [x for layer in layers for x in (layer.logits, layer.boxes)]
    parts += [output.queries.logits, output.queries.reference_boxes]
    if output.encoded.density is not None:
        parts.append(output.encoded.density)
    return torch.stack([part.float().square().mean() for part in parts]).sum()


def noised(batch: int, queries: int, device: torch.device) -> Denoising | None:
    """Denoising queries at random places, in one group."""
    if not queries:
        return None
    boxes = torch.rand(batch, queries, 4, device=device) * torch.tensor([1, 1, 0.05, 0.05], device=device) + 0.01
    labels = torch.randint(len(AI_TOD), (batch, queries), device=device)
    return Denoising(labels, boxes, torch.zeros_like(labels))


def now(device: torch.device) -> float:
    """Seconds, when all work so far is done."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return perf_counter()


def peak_bytes(device: torch.device) -> int:
    """Most memory in use so far: of tensors on a GPU, of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def machine(device: torch.device) -> str:
    """The device that computed."""
    return torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or platform.machine()


def report(figures: dict) -> str:
    """The figures as text."""
    lines = [
        f"{figures['preset']}: {figures['parameters'] / 1e6:.1f} M parameters, {figures['batch']} pictures of "
        f"{figures['size']} px, activation checkpointing {'on' if figures['checkpointing'] else 'off'}",
        f"{figures['machine']}, {figures['threads']} CPU threads, torch {figures['torch']}",
        f"peak memory {figures['peak_gib']:.2f} GiB",
        "",
        "| step | forward s | backward s | K of each picture |",
        "|---:|---:|---:|---|",
    ]
    for number, step in enumerate(figures["steps"]):
        queries = ", ".join(str(k) for k in step["queries"])
        lines.append(f"| {number} | {step['forward_s']:.2f} | {step['backward_s']:.2f} | {queries} |")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Time and memory of a training step of D3Q's hosts.")
    parser.add_argument("preset", choices=HOSTS)
    parser.add_argument("--size", type=int, default=800, help="side of the pictures in pixels (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=2, help="pictures a step (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=1, help="steps; the first one warms up (default: %(default)s)")
    parser.add_argument("--fewest", type=int, default=20, help="objects of the first picture (default: %(default)s)")
    parser.add_argument("--most", type=int, default=900, help="objects of the last picture (default: %(default)s)")
    parser.add_argument("--denoising", type=int, default=200, help="denoising queries (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves the choice to PyTorch")
    parser.add_argument("--fixed-queries", action="store_true", help="without D3Q: k_max queries for every picture")
    parser.add_argument("--no-checkpointing", action="store_true", help="keep all activations")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
    return parser


if __name__ == "__main__":
    main()
