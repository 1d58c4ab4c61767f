"""The one error that is the user's to mend."""


class InputError(ValueError):
    """Bad input: the message says what was expected, what was found, what to do, and names the flag or file.

    The command line prints the message alone, without a traceback, and exits with code 2.
    """
