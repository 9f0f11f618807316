"""Pictures and tables of trained networks.

- `gradcam`: Grad-CAM maps, where in an image the evidence for a class is;
- `selectivity`: class selectivity index of the channels of every block;
- `weights`: softmax weights that AFI gives to the features of earlier blocks;
- `memory`, `table6`: peak memory in training and in inference, as the paper's Table 6;
- `study_analysis`: all of it for trials of a study.

The modules are not imported here: they need matplotlib, and Grad-CAM needs captum, which training
does not.
"""
