"""A whole short pass of a model on a CPU, as one compiled function.

Decoding a token with a small model reads a few megabytes: what torch takes to begin each of some
hundred operations is many times that. Here a pass is one call, and reads each weight once.
"""

from kernels.cpu_pass.outputs import PassOutputs
from kernels.cpu_pass.packing import LayerWeights, ModelWeights, narrowest, pack
from kernels.cpu_pass.passes import CompiledPasses

__all__ = ["CompiledPasses", "LayerWeights", "ModelWeights", "PassOutputs", "narrowest", "pack"]
