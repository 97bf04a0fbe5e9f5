"""Fused Triton kernels: ``neuroformer.kernels``, imported by ``neuroformer.ops`` alone (and its benchmark).

Every kernel has an eager oracle in ``neuroformer.ops.eager`` and a section in ``kernels/README.md``.
"""
