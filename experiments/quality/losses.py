"""Judges trained character models: python experiments/quality/losses.py --data=data/shakespeare_char RUN [RUN …]

Prints one JSON line per run and window length: the losses that judge.py finds for the last checkpoint.
"""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging
from judge import characters, judge

from gptjax.inference.decode import WEIGHTS as WEIGHT_TYPES
from gptjax.inference.decode import decoding_params
from gptjax.model.families import family_of
from gptjax.training.checkpoints.loading import load_for_inference

DATA = flags.DEFINE_string("data", "data/shakespeare_char", "The prepared folder whose validation split is read.")
LENGTHS = flags.DEFINE_list("lengths", [], "Window lengths; default: the run's own.")
WEIGHTS = flags.DEFINE_enum("weights", "float32", WEIGHT_TYPES, "The type of the weight matrices, as in generation.")


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)  # Orbax logs every array that it reads
    text, first = characters(DATA.value, "validation")
    for workdir in map(Path, argv[1:]):
        params, config, metadata = load_for_inference(workdir)
        family = family_of(config.model)
        model = family.module()
        params = decoding_params(family, params, WEIGHTS.value)

        @jax.jit
        def nll(inputs, targets, params=params, model=model) -> jax.Array:
            log_probabilities = jax.nn.log_softmax(model.apply({"params": params}, inputs + first))
            return -jnp.take_along_axis(log_probabilities, targets[..., None] + first, axis=-1)[..., 0]

        for length in map(int, LENGTHS.value or [config.data.sequence_length]):
            losses = judge(lambda *arrays: np.asarray(nll(*arrays)), text, length)
            print(json.dumps({"run": str(workdir), "step": metadata["step"], "window": length, **losses}), flush=True)


if __name__ == "__main__":
    app.run(main)
