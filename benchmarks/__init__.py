"""Each module prints one table, side by side with a peer, in one run: python -m benchmarks.NAME."""
