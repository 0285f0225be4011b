"""Which texts are asked for: held-out annotations, a file of JSON lines, or a list on the command line."""

import json
import logging
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffcontrol.allowed import error_or_skip
from diffcontrol.data.corpus import Corpus, Example
from diffcontrol.layout import joint
from diffcontrol.refused import Refused
from diffcontrol.task import ControlTask, Request

SPLIT_OF = {"heldout": "test", "dev": "dev"}
ON_INVALID = error_or_skip("an invalid target")
ALLOWED = "allowed are heldout, dev, a file of JSON lines, or a list of targets"
SURROGATE = re.compile("[\ud800-\udfff]")
log = logging.getLogger(__name__)


def choose(tasks: Mapping[str, ControlTask], corpus: Corpus, source: Any, n: int | None, seed: int,
           on_invalid: str = "error") -> list[Request]:  # fmt: skip
    """Requests for the tasks. From a split: `n` sentences drawn with `seed`, and of each sentence one target a task,
    so that composed targets can be met together. From a file or a list: the first `n`, in order.

    on_invalid: what happens to a target of a file or list that a task does not accept: error, or skip (left out and
    counted).

    Raises:
        Refused: a task does not accept a target (with its line), there is no such file, or nothing to ask for.
    """
    ON_INVALID.check("targets.on_invalid", on_invalid)
    if not isinstance(source, str | list | tuple):
        raise Refused(f"targets.from={source}: {ALLOWED}")
    if not isinstance(source, str):
        _check_several(tasks, source)
        given = ((entry(i), target) for i, target in enumerate(source, 1))
        found = _given(tasks, given, on_invalid)
    elif source in SPLIT_OF:
        found = _annotated(tasks, corpus, SPLIT_OF[source], n, seed)
    elif _is_file(source):
        found = _given(tasks, _lines(Path(source)), on_invalid)
    else:
        raise Refused(f"targets.from={source}: there is no such file; {ALLOWED}")
    if not found:
        raise Refused(f"targets.from={source}: there is no target for {' and '.join(tasks)} in it")
    if n is not None and len(found) > n:
        log.warning("targets: the first %d of %d are used; targets.n=null uses all of them", n, len(found))
    if n is not None and isinstance(source, str) and source in SPLIT_OF and len(found) < n:
        log.warning("targets: %d are used where targets.n=%d, as %s has no more", len(found), n, SPLIT_OF[source])
    return found[:n]


def _check_several(tasks: Mapping[str, ControlTask], source: Sequence[Any]) -> None:
    """Whether a literal list, of which no entry is a target of the only task, is itself one that lacks the brackets of
    a list of targets.

    Raises:
        Refused: it is.
    """
    if len(tasks) != 1 or not source or any(_parsed(tasks, target) for target in source):
        return
    if _parsed(tasks, source):
        said = ",".join(map(str, source))
        raise Refused(f"targets.from=[{said}]: this is one target, and a list of targets is needed; write "
                      f"targets.from=[[{said}]]")  # fmt: skip


def _parsed(tasks: Mapping[str, ControlTask], target: Any) -> Request | None:
    try:
        return _request(tasks, target, "")
    except Exception:  # a guess: what is no target may make a task stumble
        return None


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except OSError:  # a target that was given without brackets is too long for a name
        return False


def entry(i: int) -> str:
    """Where the i-th target of a literal list stands, counted from 1."""
    return f"targets.from, entry {i}"


def _annotated(tasks: Mapping[str, ControlTask], corpus: Corpus, split: str, n: int | None, seed: int) -> list[Request]:
    examples = list(corpus.splits[split])
    rng = random.Random(seed)
    rng.shuffle(examples)
    found: list[Request] = []
    for example in examples:
        if len(found) == n:
            break
        options = {name: task.targets(task.annotate(example)) for name, task in tasks.items()}
        if all(options.values()):
            chosen = {name: rng.choice(targets) for name, targets in options.items()}
            if joint([tasks[name].layouts(target) for name, target in chosen.items()]):
                found.append(Request(chosen, example))
    return found


@dataclass(frozen=True)
class Line:
    """A line of JSON that is not read yet."""

    text: str

    def read(self, where: str) -> Any:
        try:
            return json.loads(self.text)
        except ValueError as error:  # no JSON, or a number of more digits than Python reads
            raise Refused(f"{where}: {self.text[:60]!r} is not JSON ({error})") from error
        except RecursionError as error:
            raise Refused(f"{where}: {self.text[:60]!r}… is nested too deep to be a target") from error


def _lines(path: Path) -> Iterator[tuple[str, Line]]:
    """Where it stands, and what stands there, of every line that is not empty. Lines end at \\n alone, as JSON may hold
    other line separators."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise Refused(f"targets.from={path}: the file is not in UTF-8 ({error})") from error
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield f"{path}, line {number}", Line(line)


def _given(tasks: Mapping[str, ControlTask], given: Iterable[tuple[str, Any]], on_invalid: str) -> list[Request]:
    found: list[Request] = []
    skipped: list[Refused] = []
    unused: set[str] = set()
    for where, target in given:
        try:
            read = target.read(where) if isinstance(target, Line) else target
            found.append(_request(tasks, read, where))
            unused |= _unused(tasks, read)
        except Refused as refused:
            if on_invalid == "error":
                raise
            skipped.append(refused)
    if unused:
        log.warning("targets: %s are not used, as task= does not choose them", ", ".join(sorted(unused)))
    if skipped:
        log.warning("targets: %d invalid and left out; the first: %s", len(skipped), skipped[0])
    return found


def _source(given: Any) -> Example | None:
    """The sentence that a line of the authors' files was made of: its `words_`, without START, END and the newline that
    closes each text of theirs, which benepar cannot read. It becomes the gold row. Most of these sentences are training
    texts of E2E, so the gold row's perplexity is too low there; 16 of their 200 spans end in that newline, so it cannot
    meet these."""
    words = given.get("words_") if isinstance(given, Mapping) else None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        return None
    return Example(tuple(word for word in words if word not in ("START", "END", "\n")))


def _unused(tasks: Mapping[str, ControlTask], given: Any) -> set[str]:
    """What a user's row {task: target, …} names beside the tasks; nothing of a line of the authors' files."""
    by_task = isinstance(given, Mapping) and set(given) & set(tasks) and _source(given) is None
    return set(map(str, given)) - set(tasks) if by_task else set()


def _request(tasks: Mapping[str, ControlTask], given: Any, where: str) -> Request:
    """One user's row: {task: target, …}, or the bare target where one task is chosen, or a line of the authors' files,
    of which every task reads what it knows."""
    source = _source(given)
    if isinstance(given, Mapping) and set(given) & set(tasks):
        missing = sorted(set(tasks) - set(given))
        if missing:
            raise Refused(f"{where}: there is no target for {', '.join(missing)}")
        by_task = {name: given[name] for name in tasks}
    elif len(tasks) == 1 or source:
        by_task = dict.fromkeys(tasks, given)
    else:
        raise Refused(f"{where}: {given!r} does not say which task it is for; write {{task: target, …}}")
    if half := SURROGATE.search(json.dumps(by_task, ensure_ascii=False, default=str)):
        raise Refused(f"{where}: the target holds {half[0]!r}, which is half of a character")
    try:
        request = Request({name: tasks[name].parse(target) for name, target in by_task.items()}, source)
    except Refused as refused:
        raise Refused(f"{where}: {refused}") from refused
    layouts = joint([tasks[name].layouts(target) for name, target in request.targets.items()])
    if not layouts:
        raise Refused(f"{where}: the targets of {' and '.join(tasks)} ask for different words at the same place")
    said = {name: n for name, task in tasks.items() if (n := task.words(request.targets[name])) is not None}
    if len(set(said.values())) > 1:
        lengths = ", ".join(f"{n} words by {name}" for name, n in said.items())
        raise Refused(f"{where}: the targets ask for texts of different lengths ({lengths})")
    if all(ends := [layout.end for layout in layouts]):
        fixed = sorted({end - 1 for end in ends if end})
        for name, n in said.items():
            if n not in fixed:
                among = f"{fixed[0]} to {fixed[-1]}" if fixed[1:] else str(fixed[0])
                raise Refused(f"{where}: {name} asks for {n} words, and what the targets fix leaves room for {among}")
    room = {name: n for name, task in tasks.items() if (n := task.most_words(request.targets[name])) is not None}
    least = {name: task.least_words(request.targets[name]) for name, task in tasks.items()}
    if room and (needed := max(least.values())) > (most := min(room.values())):
        long, short = max(least, key=least.__getitem__), min(room, key=room.__getitem__)
        raise Refused(f"{where}: {long} needs {needed} words at least, and {short} allows {most} at most")
    return request


def sources(requests: Sequence[Request]) -> list[list[list[str]]] | None:
    """The source sentences as texts [requests][1], or None where the user's own targets have none."""
    if any(request.source is None for request in requests):
        return None
    return [[list(request.source.words)] for request in requests if request.source is not None]
