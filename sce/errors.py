"""The one exception that means: the user's input is wrong.

Entry points print it as a single line and exit with code 2. Anything else is a bug and keeps its
traceback.
"""


class InputError(ValueError):
    """The user's input is wrong; the message names the thing and says what to do."""
