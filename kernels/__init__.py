"""Fused Triton kernels, imported as ``neuroformer.kernels``; only ``neuroformer.ops`` imports them."""
