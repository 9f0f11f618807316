"""Pictures and tables of trained networks; `study_analysis` makes all of them for a study's trials.

The modules are not imported here: they need matplotlib, and Grad-CAM needs captum.
"""
