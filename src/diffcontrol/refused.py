"""Refused: the one exception that is meant for the user."""


class Refused(ValueError):  # noqa: N818  it is no error of the program
    """What the user asked for cannot be done. The message is one sentence that names the value and what is allowed.

    `run.py` prints the sentence alone, `on_unsupported=skip` leaves the method out and `targets.on_invalid=skip` the
    target. Every other exception is a mistake in the program and keeps its traceback.
    """
