"""Networks on Triton's kernels, run by its interpreter on the CPU: see `on_device`.

Run as a program with TRITON_INTERPRET=1, which must be set before Triton is imported. Arguments:
architectures and precisions, such as "resnet20(base-r4)/fp32".
"""

from __future__ import annotations

import sys
from functools import partial
from types import SimpleNamespace
from unittest.mock import patch

from afi_search.nn.ops import common, cuda, scores
from tests.nn.on_device import compare

if __name__ == "__main__":
    kernels = SimpleNamespace(kernel=partial(getattr, cuda), available=lambda: True)
    with (
        patch.object(common, "cpu", kernels),
        patch.object(scores, "accelerates", lambda *_: True),
    ):
        for argument in sys.argv[1:]:
            compare(*argument.split("/"), "cpu")  # type: ignore[call-arg]
