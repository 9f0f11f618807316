"""The one seam to accelerated code: what `stage`, `afi` and batch norm compute, in fewer passes.

Four operators of torch.library, each with a rule for autograd and one for fake tensors:
`afi::pool`, `afi::weighted_sum` and `afi::join` (`gathered`) and `afi::batch_norm` (`batch_norm`).
Under autocast they compute in the dtypes that they are given. A CPU runs C++ (`cpu`), a GPU Triton
(`cuda`), and where neither can be had the operators' own torch code stands in.
"""
