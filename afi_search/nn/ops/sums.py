"""In which numbers many are added up."""

from __future__ import annotations

import torch


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype to add up numbers of that dtype in."""
    return torch.promote_types(dtype, torch.float32)
