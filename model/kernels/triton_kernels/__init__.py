"""The fused operations for CUDA in Triton, a file each; the modules of model/kernels import them when they are asked for.

fp32 inside whatever the inputs are, no atomics (the same inputs give the same bits), dropout from `bits.py` recomputed
in backward, shapes decided by the host without asking the device. Tests run them on CPUs in Triton's interpreter and
compile them for compute capability 9.0; block sizes and warps are reasoned, not measured: no GPU was at hand.
"""
