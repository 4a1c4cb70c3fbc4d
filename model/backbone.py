"""Backbones: a plain one that trains from scratch on little data, and those of the timm library."""

import difflib
from pathlib import Path
from typing import Any, assert_never

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from model.config import EXTRA_STRIDE, STAGE_STRIDES, BackboneConfig, PlainBackboneConfig, TimmBackboneConfig
from model.layers import ConvNorm, ResidualBlock

EXTRA_CHANNELS = 256
"""Most channels of the level at stride 64; the width that Deformable DETR gives it."""


class PlainBackbone(nn.Module):
    """Stem at stride 2, then one stage per stride 4, 8, 16, 32, each halving the resolution."""

    def __init__(self, config: PlainBackboneConfig, strides: tuple[int, ...]) -> None:
        super().__init__()
        self.returned = [STAGE_STRIDES.index(stride) for stride in strides if stride != EXTRA_STRIDE]
        self.channels = [config.channels[i] for i in self.returned]
        self.stem = ConvNorm(3, config.stem, 3, stride=2)
        inputs = [config.stem, *config.channels]
        self.stages = nn.ModuleList(
            nn.Sequential(ConvNorm(inputs[i], outputs, 3, stride=2), *(ResidualBlock(outputs) for _ in range(blocks)))
            for i, (outputs, blocks) in enumerate(zip(config.channels, config.blocks, strict=True))
            if i <= max(self.returned)
        )
        self.extra = extra_level(self.channels) if EXTRA_STRIDE in strides else None

    def load_pretrained(self) -> None:
        """Nothing to do: there are no weights to start from."""

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W), normalised, to one (B, channels, h, w) per asked stride."""
        x = self.stem(images)
        stages = []
        for stage in self.stages:
            x = stage(x)
            stages.append(x)
        levels = [stages[i] for i in self.returned]
        return levels if self.extra is None else [*levels, self.extra(levels[-1])]


class TimmBackbone(nn.Module):
    """The stages of a convolutional model of timm, without its head.

    Building it fetches nothing; `load_pretrained` does. So a checkpoint loads on a machine without network.
    """

    def __init__(self, config: TimmBackboneConfig, strides: tuple[int, ...]) -> None:
        super().__init__()
        self.config = config
        self.stage_strides = tuple(stride for stride in strides if stride != EXTRA_STRIDE)
        self.body, self.channels = timm_stages(config.name, self.stage_strides)
        self.extra = extra_level(self.channels) if EXTRA_STRIDE in strides else None
        if config.freeze_norm:
            for norm in self._norms():
                norm.requires_grad_(False)
                norm.eval()

    def load_pretrained(self) -> None:
        """Take over the weights that the configuration names, once, when training starts.

        Raises:
            FileNotFoundError: the local file is missing.
            ValueError: timm cannot give weights, or the file does not hold this model.
        """
        match self.config.pretrained:
            case False:
                return
            case True:
                self.body.load_state_dict(fetched_weights(self.config.name, self.stage_strides))
            case path:
                weights = fitting_weights(self.body.state_dict(), path, self.config.name)
                self.body.load_state_dict(weights, strict=False)  # without counters of batches, if the file has none

    def train(self, mode: bool = True) -> "TimmBackbone":
        """Switch to training or evaluation; frozen norms stay in evaluation."""
        super().train(mode)
        if self.config.freeze_norm:
            for norm in self._norms():
                norm.eval()
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W), normalised, to one (B, channels, h, w) per asked stride."""
        levels = self.body(images)
        return levels if self.extra is None else [*levels, self.extra(levels[-1])]

    def _norms(self) -> list[nn.BatchNorm2d]:
        return [module for module in self.body.modules() if isinstance(module, nn.BatchNorm2d)]


def build_backbone(config: BackboneConfig, strides: tuple[int, ...]) -> PlainBackbone | TimmBackbone:
    """The backbone that the configuration asks for, with these levels."""
    match config:
        case PlainBackboneConfig():
            return PlainBackbone(config, strides)
        case TimmBackboneConfig():
            return TimmBackbone(config, strides)
        case _:
            assert_never(config)


def extra_level(channels: list[int]) -> nn.Conv2d:
    """Makes stride 64 of stride 32, as Deformable DETR does (section 4.1); appends its channels to the list."""
    inputs, outputs = channels[-1], min(channels[-1], EXTRA_CHANNELS)
    channels.append(outputs)
    return nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)


def timm_stages(name: str, strides: tuple[int, ...], pretrained: bool = False) -> tuple[nn.Module, list[int]]:
    """Build the stages of a timm model up to the last one asked for.

    Args:
        name: what timm calls it, with or without the tag of its weights.
        strides: consecutive ones of 4, 8, 16, 32.
        pretrained: let timm fetch its weights.
    Returns:
        The stages, which give one map per stride, and their channels.
    Raises:
        ValueError: timm has no such model, or it gives no NCHW maps at these strides.
    """
    import timm  # here, so that the plain backbone does without it

    if not timm.is_model(name):
        nearest = difflib.get_close_matches(name, timm.list_models(), n=1, cutoff=0.0)[0]
        raise ValueError(f"timm {timm.__version__} has no model {name!r}; the nearest is {nearest!r}")
    indices = [STAGE_STRIDES.index(stride) - len(STAGE_STRIDES) for stride in strides]  # its last four, from behind
    try:
        body: Any = timm.create_model(name, features_only=True, out_indices=indices, pretrained=pretrained)
    except RuntimeError as error:
        raise ValueError(f"timm cannot build {name} as a backbone: {error}") from error
    reductions, order = tuple(body.feature_info.reduction()), getattr(body, "output_fmt", None)
    if reductions != strides or (order is not None and order.value != "NCHW"):
        raise ValueError(
            f"timm model {name} cannot be a backbone: it gives {order.value if order else 'NCHW'} maps at strides "
            f"{reductions}, not NCHW at {strides}; take a convolutional one, such as hgnetv2_b0 or resnet50"
        )
    return body, list(body.feature_info.channels())


def fetched_weights(name: str, strides: tuple[int, ...]) -> dict[str, Tensor]:
    """The weights that timm keeps for a model, fetched by timm. Raises ValueError if that fails."""
    try:
        return timm_stages(name, strides, pretrained=True)[0].state_dict()
    except Exception as error:  # timm fetches through libraries that each have errors of their own
        raise ValueError(
            f"timm could not fetch pre-trained weights of {name} ({type(error).__name__}: {error}); without network, "
            "set backbone.pretrained to a safetensors file of this timm model, or to false"
        ) from error


def fitting_weights(own: dict[str, Tensor], path: Path, name: str) -> dict[str, Tensor]:
    """Read the weights of a timm model's stages from a file of the whole model.

    Args:
        own: state of the stages, to know names and shapes.
        path: safetensors file; what is not of the stages, such as the classifier, is ignored.
        name: of the model, for the error.
    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or some tensor of the stages is not in it with the right shape.
    """
    if not path.is_file():
        raise FileNotFoundError(f"backbone.pretrained names {path}, which is no file")
    try:
        given = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is no whole safetensors file: {error}") from error
    given |= {flattened(key): tensor for key, tensor in given.items()}
    fitting = {key: given[key] for key in own if key in given and given[key].shape == own[key].shape}
    absent = [key for key in own if key not in fitting and not key.endswith("num_batches_tracked")]
    if absent:
        raise ValueError(
            f"{path} does not hold timm's {name}: {len(absent)} of the backbone's {len(own)} tensors are not in it or "
            f"have another shape, such as {absent[0]}"
        )
    return fitting


def flattened(key: str) -> str:
    """Name of a tensor after timm took the stages out of their sequence: stages.0.x becomes stages_0.x."""
    return key.replace(".", "_", 1)
