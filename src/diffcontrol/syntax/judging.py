"""What the scorers of the syntax tasks share: the judge's parses, and the released scorer's cutting and filling."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from diffcontrol.refused import Refused
from diffcontrol.syntax import trees

if TYPE_CHECKING:
    from diffcontrol.syntax.parser import Parse


def parses(judges: Mapping[str, Any], texts: Sequence[Sequence[str]], task: str) -> "list[Parse]":
    """The judge parser's parse of each text.

    Raises:
        Refused: there is no such judge.
    """
    if judges.get("parser") is None:
        raise Refused(f"{task}: scoring needs the judge `parser` (conf: judge.parser=${{parser}})")
    return judges["parser"].parse(texts)


def constituents(judges: Mapping[str, Any], texts: Sequence[Sequence[str]], task: str) -> list[Sequence[trees.Span]]:
    """The constituents of each text by the judge parser, as `trees.spans` gives them; none where there is no parse.

    Raises:
        Refused: there is no such judge.
    """
    return [trees.spans(trees.bare(p.tree))[1] if p.tree else () for p in parses(judges, texts, task)]


def fitted(items: Sequence[str], length: int, filler: str) -> list[str]:
    """Cut, or filled up, to the length."""
    return [*items[:length], *[filler] * (length - len(items))]
