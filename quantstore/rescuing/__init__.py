"""From a network that int8 breaks to files that keep it: choose remedies, write, verify."""
