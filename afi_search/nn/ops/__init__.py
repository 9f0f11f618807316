"""The one seam to accelerated code: what lies between convolutions, in fewer passes over memory.

Operators of torch.library, each one function that allocates what it returns (`common.operator`):
`afi::weighted_sum`, `afi::channel_dots` and `afi::join` (`gathered`), `afi::moments`,
`afi::normalise` and its gradient (`batch_norm`), `afi::weigh` and its gradient (`scores`). Autograd
functions call them. Under autocast they compute in the dtypes that they get. A CPU runs C++
(`cpu`), a GPU Triton (`cuda`); where neither can be had, where features do not lie with channels
last, and in `plain()`, torch's own run.

What they buy of a training step on a CPU (AFI-ResNet-32, base-r4, batch 128, one thread, CPU time,
by benchmarks/afi_step.py): AFI's sums 10 % in fp32 and 25 % in bf16, batch norm 8 % in bf16 and
nothing in fp32. On batches of 12 none of them buys anything.
"""
