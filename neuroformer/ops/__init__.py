"""Operations with several implementations behind one checked call."""

from neuroformer.ops.attention import attention
from neuroformer.ops.cross_entropy import marked_cross_entropy
from neuroformer.ops.ragged import Ragged

__all__ = ["Ragged", "attention", "marked_cross_entropy"]
