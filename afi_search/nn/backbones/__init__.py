"""The families of backbones, a file each; `afi_search.space.families` has their shapes."""
