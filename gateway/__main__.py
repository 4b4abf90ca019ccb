"""`python -m gateway` is `chips serve`."""

import sys

from gateway.cli import main

if __name__ == "__main__":
    main(["serve", *sys.argv[1:]])
