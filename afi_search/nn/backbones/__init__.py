"""The families of backbones, a file each; `afi_search.space.backbone` has their shapes."""
