"""Parts of pages, each from its arguments."""
