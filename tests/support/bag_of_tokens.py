"""A minimal user-defined family: the mean of the embeddings of all tokens so far predicts the next one."""

from dataclasses import replace

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from gptjax.config import ConfigError
from gptjax.model.family import Family
from gptjax.model.flops import flops_of_causal_layers
from gptjax.model.parameters import lookup, matrix
from gptjax.model.placement import ONE_DEVICE, Placement
from gptjax.settings import ModelSettings


class Bag(nn.Module):
    logit_softcap = 0.0  # not a field, since it has no annotation
    config: ModelSettings
    placement: Placement = ONE_DEVICE

    def setup(self):
        vocab, width = {"vocab": self.config.vocab_size}, {"embed": self.config.width}
        self.words = lookup(self, "words", vocab, width, nn.initializers.normal(1.0))
        self.guess = matrix(self, "guess", width, vocab, nn.initializers.normal(0.02))

    def declare(self):
        return self.words, self.guess

    def hidden(self, tokens_BT, segments_BT=None, positions_BT=None, dropout_keys_B=None):
        count_T1 = jnp.arange(1, tokens_BT.shape[1] + 1)[:, None]
        x_BTD = jnp.cumsum(self.words[tokens_BT], axis=1) / count_T1
        return self.placement.residual(x_BTD), {}

    def output_matrix(self):
        return self.guess


@struct.dataclass
class Sums:
    sum_BD: jax.Array
    count_B: jax.Array
    num_slots: int = struct.field(pytree_node=False)

    def grown(self, more):
        return replace(self, num_slots=self.num_slots + more)

    def logits(self, params):
        return (self.sum_BD / self.count_B[:, None]) @ params["guess"].astype(jnp.float32)


class BagFamily(Family):
    flop_formulas = dict.fromkeys(("causal", "full"), "6·D·V")

    @classmethod
    def validate(cls, config_model, sequence_length):
        if config_model.dropout:
            raise ConfigError(f"model.dropout = {config_model.dropout}: a bag of tokens has none")

    def module(self, placement=ONE_DEVICE):
        return Bag(self.config, placement)

    def flops_per_token(self, sequence_length, source_length=0):
        return flops_of_causal_layers(self.declarations, (), 0, sequence_length)

    def prefill(self, params, prompt_BT, lengths_B, *, room, piece):
        T = prompt_BT.shape[1]
        embedded_BTD = params["words"].astype(jnp.float32)[prompt_BT]
        is_read_BT1 = (jnp.arange(T) < lengths_B[:, None])[..., None]
        cache = Sums((embedded_BTD * is_read_BT1).sum(1), lengths_B, T + room)
        return cache, cache.logits(params)

    def step(self, params, cache, token_B, going_B):
        new_BD = params["words"].astype(jnp.float32)[token_B] * going_B[:, None]
        cache = replace(cache, sum_BD=cache.sum_BD + new_BD, count_B=cache.count_B + going_B)
        return cache, cache.logits(params)
