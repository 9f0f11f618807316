"""The main job, from a space file to a front: `python -m afi_search.run SPACE`."""

from afi_search.cli.main import main_of_run

if __name__ == "__main__":
    main_of_run()
