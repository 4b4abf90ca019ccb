"""Runs `chips register NAME URL` as `python -m gateway.register NAME URL`."""

import sys

from gateway.cli import main

if __name__ == "__main__":
    main(["register", *sys.argv[1:]])
