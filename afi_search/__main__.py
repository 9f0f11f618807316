"""The command line: `python -m afi_search` is the same program as `afi-search`."""

from afi_search.cli.main import main

if __name__ == "__main__":
    main()
