"""`python -m gateway.cli` is `chips`."""

from gateway.cli import main

if __name__ == "__main__":
    main()
