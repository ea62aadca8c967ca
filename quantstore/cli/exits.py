"""The exit codes of the command line; scripts rely on them."""

OK, SOME_FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
