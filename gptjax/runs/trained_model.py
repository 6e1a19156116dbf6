"""A run's model as the commands `sample`, `chat` and `serve` load it, and as a script or a notebook does.

    model = load_trained_model("runs/mine", checkpoint="best")
    print(model.generator().generate(["Once"], max_new_tokens=40)[0].text)

GUIDE.md has more ("In Python").
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from gptjax.config import ConfigError
from gptjax.inference.generate import Generator
from gptjax.interop.adapters import Adapter, load_adapter
from gptjax.model.families import reading_family_of
from gptjax.settings import ModelSettings, Settings
from gptjax.tokenizer import Tokenizer
from gptjax.training.checkpoints.format import hash_of_params
from gptjax.training.checkpoints.loading import load_for_inference, load_tokenizers, saved_config


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """A run's parameters with what belongs to them.

    Attributes:
      workdir: the run's folder.
      params: a nested dict of arrays.
      config: of the run; its `model` section describes `params`.
      metadata: of the checkpoint.
      params_hash: tells its parameters from others.
      source_tokenizer: that of the sources of pairs, if they have their own.
      mesh: the devices over which they are divided; None: they are on one.
    """

    workdir: str
    params: Any
    config: Settings
    metadata: dict[str, Any]
    params_hash: str
    tokenizer: Tokenizer
    source_tokenizer: Tokenizer | None
    mesh: Mesh | None

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Of the training data."""
        return self.metadata["fingerprint"]

    @property
    def num_parameters(self) -> int:
        return sum(x.size for x in jax.tree.leaves(self.params))

    def logits(self, *tokens: Any) -> jax.Array:
        """The logits [B, T, V] in float32 of the token after each position: those at t depend on positions 0 to t.

        Every number of rows and positions is compiled once. Documents begin with a begin token, which
        `generator().framed("Once").tokens` puts first.

        Args:
          tokens: rows of equal length with token ids, [B, T]; of an encoder–decoder the sources [B, S], then the
            targets [B, T].
        """
        arrays = [jnp.asarray(rows, jnp.int32) for rows in tokens]
        with contextlib.nullcontext() if self.mesh is None else jax.set_mesh(self.mesh):
            return _logits(dataclasses.replace(self.config.model, **_READING), self.params, *arrays)

    def adapters(self, names: Sequence[str]) -> dict[str, Adapter]:
        """The adapters that `--adapter` names. Raises ConfigError if one does not fit the run."""
        if names and saved_config(self.workdir).model.lora_rank:
            raise ConfigError(f"--adapter={names[0]}: must not be given for a run that has an adapter itself")
        return {name: load_adapter(name, self.workdir, self.config.model, self.params_hash) for name in names}

    def generator(self, adapter: Adapter | None = None, **options: Any) -> Generator:
        """The generator of the model, or of the model with an adapter merged into it. options: as for `Generator`."""
        params, model = (self.params, self.config.model) if adapter is None else adapter.over(self.params)
        return Generator(
            params,
            dataclasses.replace(self.config, model=model),
            self.tokenizer,
            source_tokenizer=self.source_tokenizer,
            begin_id=self.fingerprint.get("begin_id"),
            objective=self.config.training.objective,
            mesh=self.mesh,
            **options,
        )


# Settings of training that do not belong to the function: this device may have no flash attention, nothing is saved for
# a gradient, and experts drop no tokens, as in generation.
_READING: dict[str, Any] = dict(attention="xla", remat="none", expert_capacity=0.0)


@functools.partial(jax.jit, static_argnums=0)
def _logits(model: ModelSettings, params: Any, *tokens: jax.Array) -> jax.Array:
    module: Any = reading_family_of(model).module()
    return module.apply({"params": params}, *tokens)


def load_trained_model(
    workdir: str,
    checkpoint: str | int = "latest",
    ema: bool | None = None,
    own_functions: bool = False,
    mesh: Mesh | None = None,
) -> TrainedModel:
    """Loads a run's model and tokenizer.

    On a CPU, where only matrix products are faster in bfloat16, a model that was trained in it computes in float32.

    Args:
      workdir: the run's folder.
      checkpoint: 'latest', 'best' (the lowest validation loss of those saved), or a step.
      ema: whether to take the moving average of the parameters; None: if the run kept one.
      own_functions: whether the model may import what the run's config names as 'module:function', which runs that
        module: only for a run that you trust.
      mesh: the devices over which the parameters are split (`inference.devices.decoding_mesh`); None: one device.

    Raises:
      ConfigError: there is no run in the folder, it has no such checkpoint, or its files do not belong together.
    """
    params, config, metadata = load_for_inference(workdir, checkpoint, ema, own_functions, mesh)
    own, of_sources = load_tokenizers(workdir, metadata)
    if jax.default_backend() == "cpu" and config.model.dtype == "bfloat16":
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, dtype="float32"))
    return TrainedModel(workdir, params, config, metadata, hash_of_params(metadata, ema), own, of_sources, mesh)
