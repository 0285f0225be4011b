"""One experiment: `python run.py task=semantic_content`. What can be chosen lies in conf/."""

from diffcontrol.cli import main

if __name__ == "__main__":
    main()
