"""Where the app starts; a folder without a folder ``pages``."""
