"""What trained networks have learnt, and what they need: pictures and tables of them.

- `gradcam`: where a network looks (Grad-CAM);
- `selectivity`: how much of a class its channels tell (class selectivity index);
- `weights`: which earlier features AFI's blocks read;
- `memory`: peak memory in training and in inference, as the paper's Table 6.

The modules are not imported here: some need captum and matplotlib, which training does not.
"""
