"""A decoder whose blocks report the size of their output, and an objective that keeps it small."""

import jax.numpy as jnp

from gptjax.model.decoder import Block, Decoder
from gptjax.model.decoder_family import DecoderFamily
from gptjax.model.placement import ONE_DEVICE
from gptjax.training.objectives import NextToken


class Reporting(Block):
    def __call__(self, x_BTD, **options):
        x_BTD, cache, statistics = super().__call__(x_BTD, **options)
        own = {"energy": jnp.square(x_BTD.astype(jnp.float32)).mean((1, 2)), "first": x_BTD[:, 0]}
        return x_BTD, cache, statistics | own


class ReportingFamily(DecoderFamily):
    def module(self, placement=ONE_DEVICE):
        return Decoder(self.config, placement, Reporting)


class Small(NextToken):
    def auxiliary(self, statistics, batch):
        tokens_B = batch["weights"].sum(1)
        energy = (statistics["energy"].mean(0) * tokens_B).sum()
        return 100 * energy, {"energy": energy}


class Indifferent(NextToken):
    pass
