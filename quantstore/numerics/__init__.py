"""Arrays in, figures out: what rounding does to weights. No file, no store."""
