"""The one seam to accelerated code: what lies between convolutions, in fewer passes over memory.

Operators of torch.library, each one function that allocates what it returns (`common.operator`):
`afi::weighted_sum`, `afi::channel_dots` and `afi::join` (`gathered`), `afi::moments`,
`afi::normalise` and its gradient (`batch_norm`), `afi::weigh` and its gradient (`scores`). Autograd
functions call them. Under autocast they compute in the dtypes that they get. A CPU runs C++
(`cpu`), for AFI's sums alone, a GPU Triton (`cuda`); where neither can be had, where features do
not lie with channels last, and in `plain()`, torch's own run.

What AFI's sums buy of a training step on a CPU (base-r4, batch 128, one thread, CPU time, by
benchmarks/afi_step.py): 22 % of AFI-ResNet-32 in bf16, 8 % of AFI-ResNet-110 in fp32, 6 % of
AFI-ResNet-32 in fp32.
"""
