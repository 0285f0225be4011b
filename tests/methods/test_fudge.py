"""FUDGE: one masked, cached call per word against each candidate run alone, and control of every row by its target."""

import pytest
import torch
from transformers import LogitsProcessorList

from diffcontrol.autoregressive.causal_lm import CausalLM
from diffcontrol.autoregressive.predictor import Predictor
from diffcontrol.autoregressive.prompted import Asked
from diffcontrol.methods import fudge
from diffcontrol.methods.fudge import Fudge, FudgeProcessor
from diffcontrol.task import Request
from diffcontrol.text import END, PAD, START, UNK
from tests.fakes import COLOURS, GPT2, OPTIM, FakeCorpus, FakeTask, ended, ids_of, train


class Spelled(FakeTask):
    """Prompts of different lengths."""

    def serialize(self, target: str) -> list[str]:
        return [*target, target]


@pytest.fixture(scope="module")
def corpus() -> FakeCorpus:
    return FakeCorpus()


@pytest.fixture(scope="module")
def lm(corpus: FakeCorpus) -> CausalLM:
    torch.manual_seed(0)
    return CausalLM(corpus, GPT2, OPTIM).eval()


@pytest.fixture(scope="module")
def trained(corpus: FakeCorpus) -> Predictor:
    torch.manual_seed(0)
    predictor = Predictor(corpus, FakeTask(), {**GPT2, "width": 32}, {**OPTIM, "batch_size": 16, "lr": 5e-3})
    train(predictor, 250)
    return predictor


def alone(predictor: Predictor, target: str, prefix: list[int], candidate: int) -> float:
    """The naive computation: no cache, no mask, no other row, no blank."""
    prompt = predictor.prompts([predictor.task.serialize(target)])
    return predictor(prompt, torch.tensor([[*prefix, candidate]]))[0, -1].item()


def test_candidates_agree_with_each_run_alone(corpus: FakeCorpus) -> None:
    torch.manual_seed(1)
    predictor = Predictor(corpus, Spelled(), GPT2, OPTIM).eval()
    for parameter in predictor.parameters():  # larger than at the start, so that differences show
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    targets = ["red", "green", "blue", "red"]
    reading, prefixes = predictor.read(targets), [[START] for _ in targets]
    counted = predictor.token_evaluations
    for step in range(5):
        candidates = torch.stack([torch.randperm(len(corpus.vocabulary))[:6] for _ in targets])
        scores = reading.score(torch.arange(len(targets)), candidates)
        for row, (target, prefix) in enumerate(zip(targets, prefixes, strict=True)):
            naive = [alone(predictor, target, prefix, c) for c in candidates[row].tolist()]
            assert scores[row].tolist() == pytest.approx(naive, abs=1e-5)
        rows = torch.tensor([0, 1, 3]) if step == 1 else torch.arange(len(targets))  # the third row ends
        chosen = torch.randint(6, (len(rows),))
        prefixes = [[*prefixes[r], int(candidates[r, c])] for r, c in zip(rows.tolist(), chosen.tolist(), strict=True)]
        targets = [targets[r] for r in rows.tolist()]
        reading.advance(rows, torch.tensor([prefix[-1] for prefix in prefixes]))
        counted += candidates.numel() + len(rows)
        assert predictor.token_evaluations == counted
    assert scores.std() > 0.01


def test_strength_0_is_the_language_model(corpus: FakeCorpus, lm: CausalLM, trained: Predictor) -> None:
    processor = FudgeProcessor([(trained.read(["red", "blue"]), 0.0)], pre_top_k=0, post_top_k=0)
    ids = torch.full((2, 1), START)
    for word in ("a", "big", "cat"):
        logits = lm.network(ids).logits[:, -1]
        expected = logits.clone()
        expected[:, [START, UNK, PAD]] = -torch.inf
        torch.testing.assert_close(processor(ids, logits), expected)
        ids = torch.cat([ids, torch.full((2, 1), corpus.vocabulary.ids[word])], 1)


def test_post_top_k_keeps_the_best(lm: CausalLM, trained: Predictor) -> None:
    processor = FudgeProcessor([(trained.read(["red"]), 3.0)], pre_top_k=6, post_top_k=2)
    scores = processor(torch.tensor([[START]]), torch.randn(1, len(lm.corpus.vocabulary)))
    assert torch.isfinite(scores).sum() == 2


@pytest.mark.parametrize("strength", [0.1, 1.0, 5.0])
def test_blocks_leave_the_result_as_it_is(lm: CausalLM, trained: Predictor, strength: float,
                                          monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    torch.manual_seed(0)
    targets, logits = ["red", "blue", "green"], 3 * torch.randn(3, len(lm.corpus.vocabulary))
    ids = torch.full((3, 1), START)
    before = trained.token_evaluations
    whole = FudgeProcessor([(trained.read(targets), strength)], post_top_k=2)(ids, logits)
    between = trained.token_evaluations
    monkeypatch.setattr(fudge, "BLOCK", 2)
    blocks = FudgeProcessor([(trained.read(targets), strength)], post_top_k=2)(ids, logits)
    torch.testing.assert_close(blocks, whole)
    assert strength > 1 or trained.token_evaluations - between < between - before


def test_near_temperature_0_the_likeliest_text_is_written(lm: CausalLM, trained: Predictor) -> None:
    cold, warm = (
        Fudge(lm, {"colour": trained}, {"colour": 1.0}, temperature=t).generate([Request({"colour": "red"})], 5)[0]
        for t in (1e-4, 1.0)
    )
    assert all(text == cold[0] for text in cold) and any(text != warm[0] for text in warm)


def test_no_predictors_is_plain_sampling(lm: CausalLM) -> None:
    method = Fudge(lm, {}, {}, post_top_k=0)
    texts = method.generate([Request({"colour": "red"})], 30)[0]
    assert len(texts) == 30 and method.models() == [lm]
    assert not {"UNK", "START", "PAD"} & {word for text in texts for word in text}


class OracleReading:
    """Knows whether the word asked for is in the text when it ends, and wants it to."""

    def __init__(self, targets: list[int]):
        self.targets, self.done = torch.tensor(targets), torch.zeros(len(targets), dtype=torch.bool)

    def __len__(self) -> int:
        return len(self.targets)

    def score(self, rows: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
        met = self.done[rows, None] | (candidates == self.targets[rows, None])
        return torch.where(met, 5.0, torch.where(candidates == END, -50.0, 0.0))

    def advance(self, rows: torch.Tensor, words: torch.Tensor) -> None:
        self.targets = self.targets[rows]
        self.done = self.done[rows] | (words == self.targets)


class Oracle:
    def __init__(self, corpus: FakeCorpus):
        self.corpus = corpus

    def read(self, targets: list[str]) -> OracleReading:
        return OracleReading([self.corpus.vocabulary.ids[target] for target in targets])


def test_a_huge_strength_forces_each_rows_own_target(lm: CausalLM) -> None:
    requests = [Request({"colour": COLOURS[i % 3]}) for i in range(12)]
    method = Fudge(lm, {"colour": Oracle(lm.corpus)}, {"colour": 100.0})
    texts = [text for (text,) in method.generate(requests, 1)]
    assert len({len(text) for text in texts}) > 1  # rows ended at different steps
    for request, text in zip(requests, texts, strict=True):
        assert text[0] == request.targets["colour"]
    assert texts == [text for (text,) in method.generate(requests, 1)]


def test_predictors_multiply(lm: CausalLM) -> None:
    predictors = {"one": Oracle(lm.corpus), "two": Oracle(lm.corpus)}
    method = Fudge(lm, predictors, {"one": 1.0, "two": 1.0}, scale=100.0)
    for (text,) in method.generate([Request({"one": "red", "two": w}) for w in ("green", "blue") * 3], 1):
        assert "red" in text[:2] and {"green", "blue"} & set(text[:2])


def test_a_trained_predictor_tells_and_controls(corpus: FakeCorpus, trained: Predictor) -> None:
    prompts = trained.prompts([["red"], ["red"]])
    texts = torch.cat([ended(ids_of(corpus, text)) for text in ("a red cat sees", "a blue cat sees")])
    logits = trained(prompts, texts)
    assert logits[0, -1] > 1 > -1 > logits[1, -1]
    assert logits[0, 1].item() == pytest.approx(logits[1, 1].item(), abs=1e-5)  # the same prefix: a
    torch.manual_seed(0)
    lm = CausalLM(corpus, GPT2, OPTIM)
    train(lm, 60)
    requests = [Request({"colour": COLOURS[i % 3]}) for i in range(60)]

    def met(strength: float) -> int:
        texts = [text for (text,) in Fudge(lm, {"colour": trained}, {"colour": strength}).generate(requests, 1)]
        return sum(r.targets["colour"] in text for r, text in zip(requests, texts, strict=True))

    assert met(8.0) >= max(45, 2 * met(0.0))


def test_drawn_targets_are_met_and_not_met(corpus: FakeCorpus) -> None:
    task, examples = FakeTask(("a", "big", *COLOURS)), corpus.splits["train"]
    asked, texts = Asked(task, examples), torch.arange(len(examples))
    targets, rows, labels = asked.draw(texts, torch.Generator().manual_seed(0))
    for target, row, label in zip(targets.tolist(), rows.tolist(), labels.tolist(), strict=True):
        assert (asked.words[target][0] in examples[row].words) == bool(label)
    assert labels.sum() == len(texts) and len(labels) > 1.9 * len(texts)


def test_texts_without_targets_are_no_positives(corpus: FakeCorpus) -> None:
    asked = Asked(FakeTask(), corpus.splits["train"])
    _, rows, labels = asked.draw(torch.arange(64), torch.Generator().manual_seed(0))
    assert set(rows[labels == 1].tolist()) == set(asked.counts.nonzero()[:, 0].tolist()) < set(range(64))


def test_a_batch_is_a_function_of_seed_and_step(corpus: FakeCorpus, trained: Predictor) -> None:
    walked = [trained.collate(trained.steps().indices(step)) for step in range(30)]
    torch.manual_seed(5)
    resumed = Predictor(corpus, FakeTask(), GPT2, {**OPTIM, "batch_size": 16})
    for name, tensor in resumed.collate(resumed.steps().indices(28)).items():
        assert torch.equal(tensor, walked[28][name])
    other = Predictor(corpus, FakeTask(), GPT2, OPTIM, model_seed=1)
    indices = trained.steps().indices(28)
    assert not torch.equal(other.collate(indices)["prompts"], trained.collate(indices)["prompts"])


def test_words_of_targets_have_ids_and_long_targets_are_cut(corpus: FakeCorpus) -> None:
    predictor = Predictor(corpus, Spelled(), GPT2, OPTIM)
    prompt = predictor.prompts([["red", "g", "?"], list("greenish") + ["red"]])
    assert prompt[0, 0] == corpus.vocabulary.ids["red"] and prompt[0, 1] >= len(corpus.vocabulary)
    assert prompt[0, 2] == UNK and prompt[0, 3] == predictor.separator and (prompt[0, 4:] == predictor.blank).all()
    assert prompt.shape[1] == predictor.prompt_length and prompt[1, -1] == predictor.separator


@pytest.mark.parametrize("beams", [2, 3])
def test_beam_search_is_refused(lm: CausalLM, trained: Predictor, beams: int) -> None:
    start = torch.full((2, 1), START)
    for count in (2, 2 * beams):  # as many targets as texts, as many as beams
        processor = FudgeProcessor([(trained.read(["red", "blue"] * (count // 2)), 1.0)])
        with pytest.raises(ValueError, match="beam search"):
            lm.network.generate(start, num_beams=beams, max_length=10, eos_token_id=END, pad_token_id=PAD,
                                logits_processor=LogitsProcessorList([processor]))  # fmt: skip


def test_tasks_without_a_strength_of_their_own_have_the_default(lm: CausalLM, trained: Predictor) -> None:
    predictors = {"colour": trained, "other": trained}
    found = Fudge(lm, predictors, {"colour": 2.0, "default": 8.0}, scale=0.5).strength
    assert found == {"colour": 1.0, "other": 4.0}


def test_faults_are_named(lm: CausalLM, trained: Predictor) -> None:
    with pytest.raises(ValueError, match="other words"):
        Fudge(CausalLM(FakeCorpus(n=3), GPT2, OPTIM), {"colour": trained}, {"colour": 1.0})
    with pytest.raises(ValueError, match="no target for 'colour'"):
        Fudge(lm, {"colour": trained}, {"colour": 1.0}).generate([Request({})], 1)
    with pytest.raises(ValueError, match="different targets"):
        Predictor(lm.corpus, FakeTask(("a",)), GPT2, OPTIM)
