"""The one seam to accelerated code: what AFI computes on features, in fewer passes over memory.

Three operators of torch.library, `afi::pool`, `afi::weighted_sum` and `afi::join`, each with a rule
for autograd and one for fake tensors. Under autocast they compute in the dtypes that they get. A
CPU runs C++ (`cpu`), a GPU Triton (`cuda`), and where neither can be had the operators' own torch
code stands in.

What they buy of a training step in torch's own operations (benchmarks/afi_step.py, base-r4, batch
128, one thread of a loaded CPU): up to 7 % in fp32 (ResNet-32 and 110), 18 to 21 % in bf16
(ResNet-32), and half a feature of memory in every block. With batches of 12 they cost 11 %.
"""
