"""The fusion of streams: blocks that attend to one stream each, in the configured order."""

from __future__ import annotations

from torch import Tensor, nn

from neuroformer.config import Config, block_plan
from neuroformer.model.attention import Block, Context
from neuroformer.ops import Ragged


class Fusion(nn.Module):
    """Current tokens attend to each stream in turn: few queries, many keys, so the cost is O(m n)."""

    def __init__(self, config: Config):
        super().__init__()
        m = config.model
        self.blocks = nn.ModuleList(
            Block(attend, m.width, m.heads, m.mlp_ratio, m.dropout) for attend in block_plan(config)
        )
        self.norm = nn.LayerNorm(m.width)

    def forward(self, x_TD: Tensor, layout: Ragged, contexts: dict[str, Context]) -> Tensor:
        for block in self.blocks:
            assert isinstance(block, Block)
            context = None if block.attend == "current" else contexts[block.attend]
            x_TD = block(x_TD, layout, context)
        return self.norm(x_TD)
