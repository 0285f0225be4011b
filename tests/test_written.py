"""Texts are kept as they come, and a run that is repeated in its folder writes only what is missing."""

import json

import pytest

from diffcontrol.method import Method
from diffcontrol.refused import Refused
from diffcontrol.task import Request
from diffcontrol.written import Written, alone_in

NODE, REQUESTS = {"_target_": "x.Y", "chunk": 2}, [Request({"t": i}) for i in range(4)]


class Counting(Method):
    """Writes a number of its own for each text; fails at the chunk `fails`."""

    def __init__(self, fails=None):
        super().__init__(2, 0)
        self.fails, self.chunks = fails, 0

    def models(self):
        return []

    def write(self, requests, draws, progress):
        if self.chunks == self.fails:
            raise ConnectionError("the power went off")
        self.chunks += 1
        return [[str(u)] for u in draws.uniform().tolist()]


def go(method, kept, n=2):
    return method.generate(REQUESTS, n, known=kept.texts, keep=lambda texts: kept.add(texts, 0.5, 7))


def test_a_run_that_broke_off_goes_on_after_its_last_chunk(tmp_path):
    whole = Counting().generate(REQUESTS, 2)
    file = tmp_path / "written" / "counting.jsonl"
    with pytest.raises(ConnectionError):
        go(Counting(fails=3), Written(file, NODE, REQUESTS, 2))
    with file.open("a") as cut_short:
        cut_short.write('{"texts": [[7, ["lo')
    kept, rest = Written(file, NODE, REQUESTS, 2), Counting()
    assert sorted(kept.texts) == list(range(6))
    assert go(rest, kept) == whole and rest.chunks == 1
    assert (kept.seconds, kept.token_evaluations) == (4 * 0.5, 4 * 7)
    again, nothing = Written(file, NODE, REQUESTS, 2), Counting()
    assert go(nothing, again) == whole and nothing.chunks == 0
    assert (again.seconds, again.token_evaluations) == (kept.seconds, kept.token_evaluations)


@pytest.mark.parametrize(
    ("node", "requests", "n"), [({**NODE, "chunk": 3}, REQUESTS, 2), (NODE, REQUESTS[1:], 2), (NODE, REQUESTS, 3)]
)
def test_texts_of_another_method_or_of_other_requests_are_dropped(tmp_path, node, requests, n):
    file = tmp_path / "counting.jsonl"
    go(Counting(), Written(file, NODE, REQUESTS, 2))
    assert len(Written(file, NODE, REQUESTS, 2).texts) == 8
    assert not Written(file, node, requests, n).texts
    assert len(file.read_text().splitlines()) == 1


@pytest.mark.parametrize("content", ["", "\n", "[]\n", "nonsense", '{"digest": 1}\n', "\x00\x00"])
def test_a_file_of_anything_else_is_begun_anew(tmp_path, content):
    file = tmp_path / "counting.jsonl"
    file.write_text(content)
    kept = Written(file, NODE, REQUESTS, 2)
    go(Counting(), kept)
    assert set(json.loads(file.read_text().splitlines()[0])) == {"digest"}
    assert len(Written(file, NODE, REQUESTS, 2).texts) == 8


def test_two_runs_never_share_a_folder(tmp_path):
    folder = tmp_path / "run"
    with alone_in(folder):
        with pytest.raises(Refused, match="another run is writing into this folder"), alone_in(folder):
            pass
        with alone_in(tmp_path / "other"):
            pass
    with alone_in(folder):
        pass
    assert not list(folder.iterdir())
