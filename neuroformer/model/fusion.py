"""The order in which streams are fused: blocks that attend to one thing each, as configured."""

from __future__ import annotations

from torch import Tensor, nn

from neuroformer.config import BlockConfig, Config
from neuroformer.model.attention import Block, Context
from neuroformer.ops import Ragged


def block_plan(config: Config) -> list[str]:
    """What each block attends to, in order. Without ``model.blocks``: one block a stream that exists."""
    blocks = config.model.blocks
    if not blocks:
        streams = ["past"] * (config.window.past > 0) + ["frames"] * (config.window.frames > 0)
        names = ["current", *streams, *config.input_groups, "current"]
        blocks = tuple(BlockConfig(name, 1) for name in names)
    return [b.attend for b in blocks for _ in range(b.layers)]


class Fusion(nn.Module):
    """Queries are few and keys are many: current tokens attend to each stream in turn, O(m n)."""

    def __init__(self, config: Config):
        super().__init__()
        m = config.model
        self.blocks = nn.ModuleList(
            Block(attend, m.width, m.heads, m.mlp_ratio, m.dropout) for attend in block_plan(config)
        )
        self.norm = nn.LayerNorm(m.width)

    def forward(self, x_TD: Tensor, layout: Ragged, contexts: dict[str, Context]) -> Tensor:
        for block in self.blocks:
            context = None if block.attend == "current" else contexts[block.attend]
            x_TD = block(x_TD, layout, context)
        return self.norm(x_TD)
