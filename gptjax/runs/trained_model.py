"""A run's model as the commands `sample`, `chat` and `serve` load it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from gptjax import tokenizer
from gptjax.config import ConfigError
from gptjax.inference.generate import Generator
from gptjax.interop.adapters import Adapter, load_adapter
from gptjax.settings import Settings
from gptjax.training.checkpoint import load_for_inference, saved_config
from gptjax.training.checkpoint_format import hash_of_params
from gptjax.training.run_metadata import check_tokenizer


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """A run's parameters with what belongs to them.

    Attributes:
      workdir: the run's folder.
      metadata: of the checkpoint.
      params_hash: tells its parameters from others.
      mesh: the devices over which they are divided; None: they are on one.
    """

    workdir: str
    params: Any
    config: Settings
    metadata: dict[str, Any]
    params_hash: str
    tokenizer: tokenizer.Tokenizer
    mesh: Mesh | None

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Of the training data."""
        return self.metadata["fingerprint"]

    @property
    def num_parameters(self) -> int:
        return sum(x.size for x in jax.tree.leaves(self.params))

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
            source_tokenizer=tokenizer.load_of_sources(self.workdir),
            begin_id=self.fingerprint.get("begin_id"),
            objective=self.config.training.objective,
            mesh=self.mesh,
            **options,
        )


def load_trained_model(
    workdir: str, checkpoint: str | int, ema: bool | None, own_functions: bool, mesh: Mesh | None
) -> TrainedModel:
    """Loads a run's model and tokenizer; see `load_for_inference` for the arguments.

    On a CPU, where only matrix products are faster in bfloat16, a model that was trained in it computes in float32.

    Raises:
      ConfigError: config, tokenizer and checkpoint in the folder do not belong together.
    """
    params, config, metadata = load_for_inference(workdir, checkpoint, ema, own_functions, mesh)
    own = tokenizer.load(workdir)
    check_tokenizer(metadata, own.hash, f"--workdir={workdir}")
    if jax.default_backend() == "cpu" and config.model.dtype == "bfloat16":
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, dtype="float32"))
    return TrainedModel(workdir, params, config, metadata, hash_of_params(metadata, ema), own, mesh)
