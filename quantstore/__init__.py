"""quantstore: does a network survive int8, which layers break it, and what would rescue it?"""

__version__ = "0.1.0"
