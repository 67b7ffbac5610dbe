"""The one exception that is meant for the person at the keyboard."""


class InputError(ValueError):
    """Bad input, told in one line.

    The message names the file or key, says what is wrong with it, and what would be right.
    The command line prints it as ``error: ...`` and exits with status 2.
    """
