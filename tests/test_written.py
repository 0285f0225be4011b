"""Texts are kept as they come, and a run that is repeated in its folder writes only what is missing."""

import json

import pytest

from diffcontrol.method import Method
from diffcontrol.ranks import ALONE, Share
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


class Priced(Counting):
    """A network of 7 token evaluations a chunk."""

    def models(self):
        return [self]

    @property
    def token_evaluations(self):
        return 7 * self.chunks


def kept_in(folder, node=NODE, requests=REQUESTS, n=2, share=ALONE):
    return Written(folder, "counting", node, requests, n, share)


def test_a_run_that_broke_off_goes_on_after_its_last_chunk(tmp_path):
    whole, folder = Counting().generate(REQUESTS, 2), tmp_path / "written"
    with pytest.raises(ConnectionError):
        kept_in(folder).write(Priced(fails=3))
    with (folder / "counting.jsonl").open("a") as cut_short:
        cut_short.write('{"texts": [[7, ["lo')
    kept, rest = kept_in(folder), Priced()
    assert sorted(kept.texts) == list(range(6))
    kept.write(rest)
    assert kept.all() == whole and rest.chunks == 1
    assert kept.token_evaluations == 4 * 7 and kept.seconds > 0
    again, nothing = kept_in(folder), Priced()
    again.write(nothing)
    assert again.all() == whole and nothing.chunks == 0
    assert (again.seconds, again.token_evaluations) == (kept.seconds, kept.token_evaluations)


@pytest.mark.parametrize("world", [2, 3, 9])
def test_processes_that_share_the_writing_have_the_texts_of_one(tmp_path, world):
    shares = [kept_in(tmp_path, share=Share(rank, world)) for rank in range(world)]
    methods = [Priced() for _ in shares]
    for share, method in zip(shares, methods, strict=True):
        share.write(method)
    assert sum(method.chunks for method in methods) == 4 and max(method.chunks for method in methods) < 4
    assert shares[0].all() == Counting().generate(REQUESTS, 2) and shares[0].token_evaluations == 4 * 7
    alone, nothing = kept_in(tmp_path), Priced()  # as many processes as you like may go on from there
    alone.write(nothing)
    assert alone.all() == shares[0].all() and nothing.chunks == 0


@pytest.mark.parametrize(
    ("node", "requests", "n"), [({**NODE, "chunk": 3}, REQUESTS, 2), (NODE, REQUESTS[1:], 2), (NODE, REQUESTS, 3)]
)
def test_texts_of_another_method_or_of_other_requests_are_left_alone(tmp_path, node, requests, n):
    kept_in(tmp_path).write(Counting())
    before = (tmp_path / "counting.jsonl").read_bytes()
    with pytest.raises(Refused, match=r"counting.jsonl: these texts were written with other settings"):
        kept_in(tmp_path, node, requests, n)
    assert (tmp_path / "counting.jsonl").read_bytes() == before and len(kept_in(tmp_path).texts) == 8


def test_nothing_is_made_before_a_text_is_there(tmp_path):
    kept_in(tmp_path / "written")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["", "\n", "[]\n", "nonsense", '{"digest": 1}\n', "\x00\x00"])
@pytest.mark.parametrize("name", ["counting.jsonl", "counting.rank1.jsonl"])
def test_a_file_of_anything_else_is_begun_anew(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    kept_in(tmp_path).write(Counting())
    assert set(json.loads((tmp_path / "counting.jsonl").read_text().splitlines()[0])) == {"digest"}
    assert len(kept_in(tmp_path).texts) == 8


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
