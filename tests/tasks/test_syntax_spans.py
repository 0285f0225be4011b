import json
from pathlib import Path

import pytest
import torch
from diffcontrol.tasks.syntax_spans import SyntaxSpans

from diffcontrol.data.corpus import Corpus, Example
from diffcontrol.syntax import trees
from tests.gold_parser import GoldParser

CHEAP = "(TOP (S (NP (DT the) (NN pub)) (VP (VBZ is) (ADJP (JJ cheap))) (. .)))"
BRING = "(TOP (S (VP (VB bring) (NP (NNS children)))))"
RELEASED = Path(__file__).parents[3] / "shared/data/control_targets/target_spans.json"
LABELS = ["NP", "VP", "PP", "S", "ADJP", "ADVP", "QP", "WHNP", "NML", "S::NP", "S::ADJP", "SBAR"]


class Few(Corpus):
    length, digest, made = 12, "few", (CHEAP, BRING)

    def read(self, split):
        return [Example(trees.read(tree).leaves, tree=tree) for tree in self.made]


@pytest.fixture(scope="module")
def task() -> SyntaxSpans:
    return SyntaxSpans(Few(), min_count=1)


@pytest.mark.parametrize(("text", "target", "strict", "released"), [
    ("the pub is cheap .", [2, 3, "VP"], 1, 1),
    ("the pub is cheap .", [3, 3, "ADJP"], 1, 1),
    ("the pub is cheap .", [2, 4, "VP"], 0, 0),
    ("the pub is cheap .", [2, 3, "NP"], 0, 0),
    ("bring children", [0, 1, "S::VP"], 1, 1),
    ("bring children", [0, 1, "VP"], 1, 0),  # each label of a chain counts, released takes the chain as one
    ("bring children", [0, 1, "S"], 1, 0),
    ("bring children", [0, 1, "NP"], 0, 0),
    ("another text", [0, 1, "NP"], 0, 0),
    ("", [0, 0, "NP"], 0, 0),
])  # fmt: skip
def test_the_span_is_a_constituent_of_the_parse(task, text, target, strict, released):
    judges = {"parser": GoldParser(task.corpus)}
    assert task.success([text.split()], [target], judges) == {"strict": [strict], "released": [released]}


def test_scoring_needs_a_parser(task):
    with pytest.raises(ValueError, match="syntax_spans: scoring needs the judge `parser`"):
        task.success([["fish"]], [[0, 0, "NP"]])


def test_targets_are_the_spans_of_a_text(task):
    cheap, bring = (task.annotate(example) for example in task.corpus.splits["train"])
    assert cheap == task.targets(cheap) == [[0, 4, "S"], [0, 1, "NP"], [2, 3, "VP"], [3, 3, "ADJP"]]
    assert bring == [[0, 1, "S::VP"], [1, 1, "NP"]]
    assert task.targets([[0, 10, "S"], [0, 9, "S"], [0, 1, "XP"]]) == [[0, 9, "S"]]  # of 12 positions
    assert task.annotate(Example(("fish",))) == []


@pytest.mark.parametrize("given", [
    [2, 3, "VP"], (2, 3, "VP"), "2, 3, VP", "2 3 VP", {"words_": ["START", "a", "END"], "spans": [[2, 3, "VP"]]},
])  # fmt: skip
def test_a_target_is_a_list_a_string_or_the_released_form(task, given):
    assert task.parse(given) == [2, 3, "VP"]


def test_part_of_a_chain_may_be_asked_for(task):
    assert task.parse([0, 1, "S"]) == [0, 1, "S"] and task.parse([0, 1, "S::VP"]) == [0, 1, "S::VP"]


@pytest.mark.parametrize(("given", "said"), [
    ([0, 1, "XP"], "no constituent 'XP' is known; known are ADJP, NP, S, S::VP, VP"),
    ([0, 1, "VP::S"], "no constituent 'VP::S' is known"),
    ([3, 2, "NP"], "words 3 to 2 are no span of a text; they are counted from 0 and the last one is at most 9"),
    ([0, 10, "NP"], "words 0 to 10 are no span"), ([-1, 2, "NP"], "words -1 to 2 are no span"),
    ([0, "NP"], "write one .first word, last word, label."), ([0, 1.0, "NP"], "not a target"),
    ([True, 1, "NP"], "not a target"), ("0, NP", "not a target"), (["0", "1", "NP"], "not a target"),
    ({"spans": []}, "not a target"), ({"spans": [[0, 1, "NP"], [2, 3, "NP"]]}, "write one"),
    ({"pos": []}, "not a target"),
])  # fmt: skip
def test_what_is_no_target_is_refused_with_what_is_allowed(task, given, said):
    with pytest.raises(ValueError, match=f"syntax_spans: .*{said}"):
        task.parse(given)


def test_prompts_are_the_released_control_strings(task):
    assert task.serialize([2, 3, "VP"]) == ["2", ",", "3", ",", "VP"]


def test_the_head_reads_one_cell_and_where_the_text_ends(task):
    """Against its definition: log Σ p(chain) of the cell, over the chains that the label is part of, and log p that END
    stands behind the span."""
    torch.manual_seed(0)
    head, hidden = task.head(6), torch.randn(1, 12, 6)
    cells = {(i, j): k for k, (i, j) in enumerate(torch.triu_indices(12, 12).T.tolist())}
    cell = head.scorer(hidden)[0, cells[3, 4]].exp()  # words 2 to 3, behind START
    numbers = head.scorer.numbers
    chain = cell[numbers["VP"]] + cell[numbers["S::VP"]]
    end = head.end(hidden)[0, :, 0].softmax(0)[5:].sum()
    torch.testing.assert_close(head.log_prob(hidden, [[2, 3, "VP"]])[0], (chain * end).log())
    torch.testing.assert_close(head.log_prob(hidden, [[2, 3, "NP"]])[0], (cell[numbers["NP"]] * end).log())
    torch.testing.assert_close(cell.sum(), torch.tensor(1.0))


@pytest.mark.skipif(not RELEASED.exists(), reason=f"the released targets are not at {RELEASED}")
def test_the_released_file_can_be_read():
    class Real(Few):
        length = 64
        made = tuple(f"(TOP ({label.replace('::', ' (')} *{')' * label.count('::')}))" for label in LABELS)

    task, lines = SyntaxSpans(Real(), min_count=1), RELEASED.read_text(encoding="utf-8").splitlines()
    targets = [task.parse(json.loads(line)) for line in lines]
    assert len(targets) == 200 and targets[0] == [3, 5, "PP"]
    assert all(isinstance(label, str) and 0 <= i <= j for i, j, label in targets)
