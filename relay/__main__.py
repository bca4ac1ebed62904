"""``python -m relay`` is the command ``dane-relay``."""

from relay.cli.main import main

if __name__ == "__main__":
    main()
