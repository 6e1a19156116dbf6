"""Takes the adapter out of a run that trains one, or merges it: python -m gptjax.adapter --workdir=RUN --output=FOLDER

  … --output=runs/base/adapters/poems           the adapter alone, in the layout of Hugging Face's PEFT
  … --output=runs/merged --merge                a run of the whole model, which needs no adapter

The first is what `gptjax sample --workdir=runs/base --adapter=poems` reads, and PEFT, for models that are like Llama or
Qwen3. The second is a run like any other: it can be sampled and evaluated, and can start another run
(training.init_from).
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax

from gptjax.command_line import cli
from gptjax.command_line.flags import Flags, given_run
from gptjax.config import ConfigError, to_json
from gptjax.data.prepared import SOURCE_PREFIX
from gptjax.display.terminal import Console
from gptjax.files import write_aside
from gptjax.files.folders import removed_if_useless
from gptjax.files.paths import CONFIG, output_folder, run_folder
from gptjax.interop.adapters import adapted_run
from gptjax.interop.peft import WEIGHTS, write_adapter
from gptjax.training.checkpoints.format import save
from gptjax.training.checkpoints.loading import load_for_inference, load_tokenizers, saved_config
from gptjax.training.metrics import init_monitor
from gptjax.training.state import TrainState

# What a checkpoint's metadata say of its own arrays, and its scores: not true of merged ones.
OF_THE_ARRAYS = ("arrays", "frozen", "format_version", "metrics")
flags = Flags()
WORKDIR, CHECKPOINT, EMA, OWN_FUNCTIONS = flags.define_run()
OUTPUT = flags.DEFINE_string("output", None, "The folder to write, new or empty.")
MERGE = flags.DEFINE_bool("merge", False, "Write a run with the adapter merged into the model, not the adapter alone.")


def main(argv: list[str]) -> None:
    del argv
    given_run(WORKDIR)
    if OUTPUT.value is None:
        raise ConfigError("--output is missing: must be a folder (see --help)")
    folder = (run_folder if MERGE.value else output_folder)(OUTPUT.value, "--output")
    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"--output={OUTPUT.value}: must be a new or an empty folder")
    if not saved_config(WORKDIR.value).model.lora_rank:
        raise ConfigError(f"--workdir={WORKDIR.value}: must be a run that trains adapters; model.lora_rank is 0 there")
    with removed_if_useless(folder, lambda folder: False):
        what = merge(folder) if MERGE.value else take_out(folder)
    Console(soft_wrap=True).print(f"{what} in {folder}")


def take_out(folder: Path) -> str:
    """Writes the adapter into the folder, and returns what it wrote."""
    config, params, base = adapted_run(WORKDIR.value, "--workdir", CHECKPOINT.value)
    folder.mkdir(parents=True, exist_ok=True)
    write_adapter(folder, config, jax.device_get(params), base.get("hash", ""), base.get("run", ""))
    return f"an adapter of rank {config.lora_rank}, {(folder / WEIGHTS).stat().st_size:,} bytes"


def merge(folder: Path) -> str:
    """Writes a run with the merged parameters into the folder, and returns what it wrote."""
    params, config, metadata = load_for_inference(WORKDIR.value, CHECKPOINT.value, EMA.value, OWN_FUNCTIONS.value)
    of_merged = dataclasses.replace(
        config, training=dataclasses.replace(config.training, init_from=""), optimizer=type(config.optimizer)()
    )
    folder.mkdir(parents=True, exist_ok=True)
    own, of_sources = load_tokenizers(WORKDIR.value, metadata)
    own.save(folder)
    if of_sources is not None:
        of_sources.save(folder, SOURCE_PREFIX)
    with write_aside(folder / CONFIG) as file:
        file.write(to_json(of_merged).encode())
    # The optimizer's state is that of other parameters, so the run cannot be continued.
    state = TrainState(jax.numpy.int32(metadata["step"]), params, (), None, init_monitor())
    of_run = {name: value for name, value in metadata.items() if name not in OF_THE_ARRAYS}
    of_run |= {"config": json.loads(to_json(of_merged)), "metrics": {}, "merged_from": WORKDIR.value}
    path = (folder / "checkpoints" / str(metadata["step"])).absolute()
    path.parent.mkdir()
    save(path, state, of_run)
    return f"step {metadata['step']:,} with its adapter merged"


if __name__ == "__main__":
    cli.run(main, flags)
