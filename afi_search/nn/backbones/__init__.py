"""The families of backbones, a file each; importing one registers its backbones."""
