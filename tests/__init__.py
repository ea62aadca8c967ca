"""Tests, in folders as the package has them."""
