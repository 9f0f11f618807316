"""From the front to ImageNet: confirm with seeds, then promote the winners."""
