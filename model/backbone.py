"""A plain residual backbone that trains from scratch on little data."""

from torch import Tensor, nn

from model.config import BackboneConfig
from model.layers import ConvNorm, ResidualBlock


class PlainBackbone(nn.Module):
    """Stem at stride 2, then one stage per stride 4, 8, 16, 32, each halving the resolution."""

    def __init__(self, config: BackboneConfig, strides: tuple[int, ...]) -> None:
        super().__init__()
        all_strides = [4 * 2**i for i in range(len(config.channels))]
        self.returned = [all_strides.index(stride) for stride in strides]
        self.channels = [config.channels[i] for i in self.returned]
        self.stem = ConvNorm(3, config.stem, 3, stride=2)
        inputs = [config.stem, *config.channels]
        self.stages = nn.ModuleList(
            nn.Sequential(ConvNorm(inputs[i], outputs, 3, stride=2), *(ResidualBlock(outputs) for _ in range(blocks)))
            for i, (outputs, blocks) in enumerate(zip(config.channels, config.blocks, strict=True))
            if i <= max(self.returned)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W), normalised, to one (B, channels, h, w) per asked stride."""
        x = self.stem(images)
        stages = []
        for stage in self.stages:
            x = stage(x)
            stages.append(x)
        return [stages[i] for i in self.returned]
