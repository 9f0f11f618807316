"""The one seam to accelerated code: what `stage` and `afi` compute, in fewer passes over memory."""
