"""The variational bound on −log p(text) of a diffusion language model (Li et al. 2022, §4.2 and eq. 2; Ho et al. 2020,
eq. 5), so that it can stand beside the exact likelihood of an autoregressive one.

The latents are x_t, the text's word vectors E_w made noisy, at the times that are sampled, from t = 1 down to the last
look at t₀, which decides the words:

    −log p(w)  ≤  E_q[ −log p(w | x_t₀) ]                                    reconstruction
                + Σ_(s < t) E_q KL( q(x_s | x_t, E_w) ‖ q(x_s | x_t, x̂₀) )   diffusion
                + KL( q(x_1 | w) ‖ N(0, I) )                                 prior

p(w | x_t₀) is the softmax of the network's logits, every word by itself. The reverse step puts x̂₀ = x̂₀(x_t, t) in the
place of E_w: the expected word vector under the network's softmax, where it predicts words. Both Gaussians have the
variance β̃, so a KL is ½ (SNR(s) − SNR(t)) ‖E_w − x̂₀‖² with SNR = ᾱ/(1 − ᾱ) (Kingma et al. 2021, 2107.00630, §4). Here
the number of steps is infinite (§5 there), which makes the sum the integral

    ½ ∫ E ‖E_w − x̂₀‖² dSNR    from SNR(1) to SNR(t₀)

so the schedule bears on it by its ends alone. The expected word vector is the best x̂₀ there is: of a network that
knows p(w | x_t) the bound is −log p(w), but for the prior term and for the dependence between words that
are still undecided at t₀.
The sampler that writes takes fewer steps, with less noise: it is another model, and this bound says nothing of it.

B texts · L positions · D embedding width
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from diffcontrol.diffusion.denoiser import Denoiser, Prediction
from diffcontrol.diffusion.schedule import NoiseSchedule

FIRST = 1 / 2000  # t₀ of a model that uses all times: the first of the paper's steps, as there is no x_0 without noise


@dataclass(frozen=True)
class Bound:
    """The three terms in nats of each text [B]."""

    reconstruction: Tensor
    diffusion: Tensor
    prior: Tensor

    @property
    def total(self) -> Tensor:
        """Upper bound of −log p, PAD included, which says where the text ends, [B]."""
        return self.reconstruction + self.diffusion + self.prior


@torch.no_grad()
def bound(denoiser: Denoiser, ids: Tensor, draws: int = 32, looks: int = 1, seed: int = 0) -> Bound:
    """The bound of texts, word ids [B L] at full length.

    draws: times of each text, stratified, at which the integral's argument is drawn. looks: how often the network looks
    at an x_t; its prediction is what self-conditioning has at the next look. Whatever the number, x̂₀ is a function of
    x_t, so the bound is one.
    """
    generator = torch.Generator().manual_seed(seed)
    table, schedule = denoiser.table(), denoiser.schedule
    x0, energy = table[ids], float(table.square().sum(-1).mean())

    def look(snr: Tensor) -> Prediction:
        alpha_bar = (snr / (1 + snr)).to(x0)[:, None, None]
        noise = torch.randn(x0.shape, generator=generator).to(x0)
        x_t = alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * noise
        t, prediction = time_of(schedule, snr).to(x0), None
        for _ in range(looks):
            prediction = denoiser(x_t, t, prediction)
        assert prediction is not None
        return prediction

    least, most = (signal_to_noise(schedule, t) for t in (1.0, max(denoiser.low, FIRST)))
    # Drawn evenly in log(1 + energy · SNR), as most is decided where a word's vector stands out from the noise.
    low, high = (math.log1p(energy * snr) for snr in (least, most))
    total = torch.zeros(len(ids), dtype=torch.float64)
    for draw in range(draws):
        place = (draw + torch.rand(len(ids), generator=generator, dtype=torch.float64)) / draws
        snr = torch.expm1(low + place * (high - low)) / energy
        error = (x0 - look(snr).x0).square().sum((1, 2)).double().cpu()
        total += 0.5 * error * (snr + 1 / energy) * (high - low)
    last = torch.full((len(ids),), most, dtype=torch.float64)
    words = torch.zeros(len(ids), dtype=torch.float64)
    for _ in range(each := max(1, draws // 8)):
        words += cross_entropy(look(last).logits.transpose(1, 2), ids, reduction="none").double().sum(1).cpu()
    alpha_bar = least / (1 + least)
    prior = 0.5 * (alpha_bar * (x0.double().square() - 1) - math.log1p(-alpha_bar)).sum((1, 2)).cpu()
    return Bound(words / each, total / draws, prior)


def signal_to_noise(schedule: NoiseSchedule, t: float) -> float:
    """ᾱ/(1 − ᾱ) at a time."""
    alpha_bar = float(schedule.alpha_bar(torch.tensor(t, dtype=torch.float64)))
    return alpha_bar / (1 - alpha_bar)


def time_of(schedule: NoiseSchedule, snr: Tensor) -> Tensor:
    """The times at which ᾱ/(1 − ᾱ) has these values, of any shape; by bisection, as ᾱ falls with t."""
    wanted = snr / (1 + snr)
    below, above = torch.zeros_like(wanted), torch.ones_like(wanted)
    for _ in range(50):
        middle = (below + above) / 2
        earlier = schedule.alpha_bar(middle) > wanted
        below, above = torch.where(earlier, middle, below), torch.where(earlier, above, middle)
    return below
