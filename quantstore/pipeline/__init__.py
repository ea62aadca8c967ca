"""File in, rows in the store: reading, measuring, running, writing."""
