"""``python -m quantstore``: the command line without an installed script."""

from quantstore.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
