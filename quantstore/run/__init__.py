"""Models that are run, not only read: the float network beside its quantized twin."""
