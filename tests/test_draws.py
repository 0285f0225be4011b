"""Each text has random numbers of its own: chunks, further samples and further targets leave it as it is."""

import pytest
import torch
from diffcontrol.tasks.infilling import Infilling
from torch.nn.functional import pad

from diffcontrol.autoregressive.causal_lm import CausalLM
from diffcontrol.autoregressive.predictor import Predictor
from diffcontrol.data.corpus import Example
from diffcontrol.diffusion.decoding import Rounding
from diffcontrol.diffusion.lm import DiffusionLM
from diffcontrol.diffusion.objective import CrossEntropy
from diffcontrol.diffusion.sampler import DDIM
from diffcontrol.diffusion.schedule import Sqrt
from diffcontrol.draws import Draws
from diffcontrol.guidance.langevin import Langevin
from diffcontrol.guidance.particles import Particles
from diffcontrol.masked.guidance import Exact
from diffcontrol.masked.lm import MaskedLM
from diffcontrol.masked.sampler import Ancestral
from diffcontrol.methods.candidates import MinimumBayesRisk
from diffcontrol.methods.fudge import Fudge
from diffcontrol.methods.guided_diffusion import GuidedDiffusion
from diffcontrol.methods.infilling import LeftOnly
from diffcontrol.methods.masked_diffusion import MaskedDiffusion
from diffcontrol.methods.mixture import Mixture
from diffcontrol.methods.smc import Smc
from diffcontrol.steering.classifier import ControlClassifier, DenoiserEncoder
from diffcontrol.task import Request
from diffcontrol.text import END, PAD
from tests.exact import D, Texts
from tests.fakes import COLOURS, GPT2, OPTIM, FakeCorpus, FakeTask

MODEL = {"embedding": 8, "width": 16, "depth": 1, "heads": 2, "dropout": 0.0}


# --- the streams


def test_a_row_draws_the_same_whatever_stands_beside_it():
    whole, alone = Draws([5, 6, 7]), Draws([6])
    for draw in (lambda d: d.normal(3, 4), lambda d: d.uniform(2), lambda d: d.categorical(torch.zeros(len(d), 50))):
        assert torch.equal(draw(whole)[1:2], draw(alone))
    assert torch.equal(whole.select([2, 1]).normal(5)[1:], alone.normal(5))


@pytest.mark.parametrize("draw", [Draws.normal, Draws.uniform])
def test_fewer_positions_are_the_first_of_more(draw):
    for fewer, more, width in ((1, 2, 3), (3, 40, 5), (7, 42, 16), (9, 10, 1)):
        assert torch.equal(draw(Draws([3, 4]), fewer, width), draw(Draws([3, 4]), more, width)[:, :fewer])


def test_numbers_are_new_at_each_draw_in_each_row_and_in_each_child():
    draws = Draws(range(50))
    found = [draws.uniform(), draws.uniform(), draws.children(3).uniform(), draws.children(3).uniform()]
    assert len(torch.cat(found).unique()) == 50 * 8
    assert torch.equal(Draws([1, 2]).children(2).uniform(), Draws([1, 2]).children(5).uniform()[[0, 1, 5, 6]])


def test_they_are_distributed_as_their_names_say():
    draws = Draws(range(2000))
    normal, uniform = draws.normal(30), draws.uniform(30)
    assert abs(normal.mean()) < 0.02 and abs(normal.var() - 1) < 0.03
    assert abs(uniform.mean() - 0.5) < 0.01 and uniform.min() >= 0 and uniform.max() < 1
    p = torch.tensor([0.5, 0.0, 0.3, 0.2])
    counts = draws.categorical(p.log().expand(2000, 4)).bincount(minlength=4)
    torch.testing.assert_close(counts / 2000, p, atol=0.04, rtol=0)
    assert counts[1] == 0
    with pytest.raises(ValueError, match="leaves no class"):
        draws.categorical(torch.full((2000, 4), -torch.inf))


def test_positions_that_are_no_longer_computed_change_no_text():
    texts = torch.tensor([[4, PAD, PAD, PAD, PAD, PAD], [5, PAD, PAD, PAD, PAD, PAD], [6, 7, 8, 9, 7, 8]])

    def walk(rows):
        draws = Draws(range(rows))
        *_, last = DDIM(20)(Texts(texts), draws.normal(6, D), draws)
        words = last.logits.argmax(-1)
        return pad(words, (0, 6 - words.shape[1]), value=PAD)

    whole = walk(20)
    assert len(whole.unique(dim=0)) == 3
    short = next(n for n in range(1, 20) if whole[n - 1, 1] == PAD)  # alone or with others of its kind it is cropped
    assert torch.equal(walk(short), whole[:short])


# --- the methods


def network(model):
    """With weights large enough that texts differ."""
    for parameter in model.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    return model.eval().requires_grad_(False)


def guided(corpus, **options):
    lm = network(DiffusionLM(corpus, MODEL, CrossEntropy(), Sqrt(), OPTIM))
    steering = {"colour": network(ControlClassifier(FakeTask(), lm, DenoiserEncoder(), corpus, OPTIM))}
    guidance = options.pop("guidance", Langevin({"default": 1.0}))
    return GuidedDiffusion(lm, DDIM(4), guidance, Rounding(), steering, **options)


def masked(corpus, **options):
    lm = network(MaskedLM(corpus, MODEL, OPTIM))
    steering = {"colour": network(ControlClassifier(FakeTask(), lm, DenoiserEncoder(), corpus, OPTIM))}
    return MaskedDiffusion(lm, Ancestral(6), Exact(), steering, {"default": 1.0}, **options)


def causal(corpus):
    return network(CausalLM(corpus, GPT2, OPTIM))


def smc(corpus, **options):
    predictor = network(Predictor(corpus, FakeTask(), GPT2, OPTIM))
    tasks, predictors, lm = {"colour": FakeTask()}, {"colour": predictor}, causal(corpus)
    lm.network.lm_head.bias = torch.nn.Parameter(torch.zeros(len(lm.corpus.vocabulary)))
    lm.network.lm_head.bias.data[END] = 4.0  # so texts are of unequal length
    return Smc(lm, tasks, predictors, particles=4, threshold=0.9, twist=True, **options)


def fudge(corpus, **options):
    return Fudge(causal(corpus), {"colour": network(Predictor(corpus, FakeTask(), GPT2, OPTIM))}, {"colour": 2.0},
                 **options)  # fmt: skip


METHODS = {
    "guided_diffusion": guided,
    "particles": lambda corpus, **options: guided(
        corpus, guidance=Particles(Langevin({"default": 1.0}), 3), **options
    ),
    "masked": masked,
    "causal LM": lambda corpus, **options: Fudge(causal(corpus), {}, {}, **options),
    "fudge": fudge,
    "smc": smc,
    "mixture": lambda corpus, chunk=50: Mixture(
        guided(corpus, chunk=chunk), fudge(corpus, chunk=chunk), 0.5
    ),
    "mbr": lambda corpus, chunk=50: MinimumBayesRisk(fudge(corpus), 3, 3 * chunk),
}  # fmt: skip


@pytest.fixture(scope="module")
def corpus():
    return FakeCorpus()


@pytest.fixture(params=METHODS)
def make(request, corpus):
    """The method with some chunk; its weights are the same each time."""

    def made(chunk=50):
        torch.manual_seed(0)
        return METHODS[request.param](corpus, chunk=chunk)

    return made


def asked(corpus, n=8):
    """Requests, of which the first two are equal."""
    examples = corpus.splits["train"]
    return [Request({"colour": COLOURS[max(i, 1) % 3]}, examples[max(i, 1)]) for i in range(n)]


def test_texts_do_not_depend_on_chunks_samples_and_other_targets(make, corpus):
    requests = asked(corpus)
    whole = make().generate(requests, 3)
    assert make(chunk=7).generate(requests, 3) == whole
    assert make().generate(requests, 1) == [texts[:1] for texts in whole]
    assert make().generate(requests[:5], 3) == whole[:5]
    assert make().generate(requests[2:], 3) == whole[2:]


def test_samples_of_a_request_differ_and_so_do_those_of_equal_requests(make, corpus):
    one, two, *_ = make().generate(asked(corpus), 6)
    assert len(set(map(tuple, one))) > 1
    assert one != two


def test_a_request_is_known_by_its_targets_and_its_source():
    text, other = Example(("a", "cat")), Example(("a", "dog"))
    requests = [Request({"t": 1}), Request({"t": 1}, text), Request({"t": 1}, other), Request({"t": 2}, text),
                Request({"u": 1}, text)]  # fmt: skip
    assert len({request.number for request in requests}) == 5
    assert Request({"t": [1, 2], "u": 3}, text).number == Request({"u": 3, "t": [1, 2]}, text).number


def test_a_left_context_goes_on_alike_beside_a_longer_one():
    """The longer one leaves the network fewer positions."""
    torch.manual_seed(0)
    task, lm = Infilling(FakeCorpus(64), length="free"), causal(FakeCorpus())
    lm.network.lm_head.bias = torch.nn.Parameter(torch.zeros(len(lm.corpus.vocabulary)))
    lm.network.lm_head.bias.data[END] = -1e3  # so no text ends by itself
    contexts = [["a"], ["a", "big", "red"], ["a"] * 8]
    targets = [{"left": left, "right": ["cat"], "length": None} for left in contexts]
    requests = [Request({"gap": target}) for target in targets]
    whole = LeftOnly({"gap": task}, lm).generate(requests, 2)
    assert LeftOnly({"gap": task}, lm, chunk=1).generate(requests, 2) == whole
