"""What came of a fault: survived, or else lost (work or weights), silent (nothing was said of it) or a traceback."""

from typing import NamedTuple

SURVIVED, LOST, SILENT, TRACEBACK = VERDICTS = ("survived", "lost", "silent", "traceback")


class Outcome(NamedTuple):
    """One fault of a kind, what came of it, and what was said."""

    kind: str
    name: str
    verdict: str
    said: str = ""
