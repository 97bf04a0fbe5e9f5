"""Fused Triton kernels, imported as ``neuroformer.kernels``; only ``neuroformer.ops`` imports them.

Every kernel has an eager oracle in ``neuroformer.ops.reference`` and a section in ``kernels/README.md``.
"""
