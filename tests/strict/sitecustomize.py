"""Makes a deprecated use an error in every process that tests start, Ray's workers among them."""

import warnings

for category in (DeprecationWarning, FutureWarning):
    warnings.filterwarnings("error", category=category, module="(afi_search|tests|benchmarks)")
