"""`python -m gateway`: serve. It skips the command line's libraries, so that a cold start does not pay for them."""

import sys

from gateway.serve import serve

if __name__ == "__main__":
    sys.exit(serve(sys.argv[1:]))
