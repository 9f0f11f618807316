"""The main job, from a space file to a front: `python -m afi_search.run SPACE`."""

from afi_search.__main__ import main

if __name__ == "__main__":
    main("main_of_run")
