"""`python -m hyperofa` is `hyperofa`."""

from hyperofa.cli import main

if __name__ == "__main__":
    main()
