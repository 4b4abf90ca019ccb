"""Registers a backend from the command line. `python -m gateway.register NAME URL` is `chips register NAME URL`."""

import sys

from gateway.cli import main

if __name__ == "__main__":
    main(["register", *sys.argv[1:]])
