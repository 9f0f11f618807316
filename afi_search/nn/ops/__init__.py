"""The one seam to accelerated code: what lies between convolutions, in fewer kernels, on a GPU.

Operators of torch.library, each one function that allocates what it returns (`common.operator`):
`afi::weighted_sum`, `afi::channel_dots` and `afi::join` (`gathered`), `afi::moments`,
`afi::normalise` and its gradient (`batch_norm`), `afi::weigh` and its gradient (`scores`). Autograd
functions call them. Under autocast they compute in the dtypes that they get. Their kernels are
Triton's (`cuda`); on a CPU, where features do not lie with channels last, and in `plain()`, torch's
own run.
"""
