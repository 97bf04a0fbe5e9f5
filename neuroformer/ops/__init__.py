"""Operations with several implementations behind one checked call."""

from neuroformer.ops.attention import attention
from neuroformer.ops.cross_entropy import marked_cross_entropy
from neuroformer.ops.inference import attention_map, attention_with_map, decode_attention
from neuroformer.ops.linear import linear
from neuroformer.ops.ragged import Ragged

__all__ = [
    "Ragged",
    "attention",
    "attention_map",
    "attention_with_map",
    "decode_attention",
    "linear",
    "marked_cross_entropy",
]
