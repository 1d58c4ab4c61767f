"""`python -m hyperofa` is `hyperofa`: it imports nothing from the current folder, which `-m` puts first on the path."""

import os
import sys

if __name__ == "__main__":
    if sys.path[0] == os.getcwd():
        del sys.path[0]  # before a `numpy.py` there is taken for numpy
    from hyperofa.cli import main

    main()
