"""Trains a model: python -m gptjax.train --config=configs/NAME.py[:arg] --workdir=DIR [--config.section.field=value …]

A run is a directory. Give the same command again to resume from the last checkpoint, even after a crash: the run
continues exactly, because data, dropout and schedule depend only on the step, which is in the checkpoint. SIGTERM and
Ctrl-C save a checkpoint first and exit cleanly.

--help_config lists every field of a config with its default, its meaning and what is allowed. The settings of the run
are printed at the start and saved as config.json.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import rich.console
from absl import flags
from jax.sharding import Mesh
from ml_collections import ConfigDict, FrozenConfigDict

from gptjax import cli
from gptjax import config as configs
from gptjax import tokenizer as tokenizers
from gptjax.config import ConfigError, Units
from gptjax.data import Dataset, open_dataset
from gptjax.data.mixture import parse_mixture
from gptjax.evaluation import perplexity
from gptjax.folders import alone_in
from gptjax.formatting import counted
from gptjax.inference.generate import Generator
from gptjax.model.resolve import resolve_model
from gptjax.parallel import distributed, members
from gptjax.parallel.agreement import named, settings
from gptjax.parallel.members import Timeouts
from gptjax.parallel.mesh import batch_devices, make_mesh
from gptjax.paths import run_folder
from gptjax.runtime import keep_freed_memory, use_compilation_cache
from gptjax.tokenizer import Tokenizer
from gptjax.training import console as consoles
from gptjax.training.checkpoint import Checkpoints, load_params
from gptjax.training.guards import check_fits, explained_memory
from gptjax.training.hardware import Peak, memory, peak_flops
from gptjax.training.history import best_so_far, record_start
from gptjax.training.interrupt import StopRequest
from gptjax.training.metrics import Throughput, count_parameters, flops_per_token
from gptjax.training.optimizer import plan, summarize
from gptjax.training.profiler import Profiler
from gptjax.training.progress import Progress
from gptjax.training.run_metadata import check_compatible, check_warm_start, run_metadata
from gptjax.training.schedule import rate_change
from gptjax.training.state import TrainState
from gptjax.training.trainer import Trainer, make_trainer
from gptjax.training.writers import MetricsWriter, write_whole

_CONFIG = cli.define_config_flag()
_WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder. If it exists, the run in it is resumed.")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "Several processes: the address of process 0, as HOST:PORT.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Several processes: how many there are.", lower_bound=1)
_PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "Several processes: the number of this one, from 0.", lower_bound=0
)
_INITIALIZATION_TIMEOUT = flags.DEFINE_float(
    "initialization_timeout",
    Timeouts.initialization,
    "Several processes: seconds to wait for all of them to start.",
    0.0,
)
_HEARTBEAT_TIMEOUT = flags.DEFINE_float(
    "heartbeat_timeout",
    Timeouts.heartbeat,
    "Several processes: seconds without a sign of life after which a process counts as lost.",
    1.0,
)
_STARTUP_TIMEOUT = flags.DEFINE_float(
    "startup_timeout",
    Timeouts.startup,
    "Several processes: seconds without progress in opening data, restoring and compiling after which the run counts "
    "as hung and ends; from the first batch on, --batch_timeout counts. 0: no limit.",
    0.0,
)
_BATCH_TIMEOUT = flags.DEFINE_float(
    "batch_timeout",
    Timeouts.batch,
    "Several processes: seconds without a new batch after which the run counts as hung and ends; compiling, evaluating "
    "and saving count, too. 0: no limit.",
    0.0,
)
flags.declare_key_flag("config")

CONVENTION = "causal"  # of the FLOPs behind every MFU that is shown


def main(argv: list[str]) -> int:
    for flag in (_CONFIG, _WORKDIR):
        if flag.value is None:
            raise ConfigError(f"--{flag.name} is missing (see --help)")
    keep_freed_memory()
    use_compilation_cache()
    meeting = members.meeting(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    timeouts = Timeouts(
        _INITIALIZATION_TIMEOUT.value, _HEARTBEAT_TIMEOUT.value, _BATCH_TIMEOUT.value, _STARTUP_TIMEOUT.value
    )
    with members.joined(meeting, timeouts):
        members.begin("checking --workdir and the config")
        workdir = run_folder(_WORKDIR.value, "--workdir")
        configs.validate(_CONFIG.value)
        members.agree(settings(_CONFIG.value))
        members.meet_devices()
        members.begin("opening the data")
        run = settle(_CONFIG.value, workdir)
        members.agree(named("data", run.data.fingerprint()) | named("model", run.config.model.to_dict()))
        members.begin("preparing --workdir")
        show_settings(run)
        alone = alone_in(run.workdir, "--workdir") if jax.process_index() == 0 else contextlib.nullcontext()
        with alone, jax.set_mesh(run.trainer.mesh), explained_memory(run.config):
            members.check_shared(run.workdir, "--workdir")
            members.begin("opening the checkpoints")
            with open_checkpoints(run) as checkpoints:
                members.begin("restoring or making the state")
                state, interval, notes = start(run, checkpoints)
                train(run, checkpoints, state, interval, notes)
    return 0


# --- Before the first step -------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything that config, data and devices settle before the first step.

    Attributes:
      config: resolved: no `auto` is left in it.
      validation: the windows that every evaluation scores; None when evaluation is off.
      units: turns durations into steps; knows the length of the run.
    """

    config: FrozenConfigDict
    workdir: Path
    data: Dataset
    validation: Dataset | None
    tokenizer: Tokenizer
    units: Units
    trainer: Trainer
    console: rich.console.Console

    @property
    def total_steps(self) -> int:
        return self.units.total_steps

    @property
    def rows_at_once(self) -> int:
        """Sequences of a micro-batch, over all devices: of evaluation, too, so that what trains fits when evaluated."""
        return self.config.training.batch_size // self.config.training.gradient_accumulation_steps

    @property
    def windows_scored(self) -> str | None:
        """Which windows the validation figures of this start are of; None when evaluation is off."""
        return None if self.validation is None else self.validation.identity()

    @property
    def tokens_per_step(self) -> int:
        return self.units.tokens_per_step

    @functools.cached_property
    def flops_per_token(self) -> dict[str, float]:
        return flops_per_token(self.config.model, self.trainer.abstract_state.params, self.config.data.sequence_length)

    @functools.cached_property
    def peak(self) -> Peak:
        return peak_flops(self.trainer.mesh.devices.flatten(), self.config.model.dtype)

    def every(self, field: str, done: int) -> bool:
        """Whether a field such as 'checkpoint.every' is due after `done` steps: at the end too, and never if empty."""
        duration = configs.get(self.config, field)
        return bool(duration) and (done % self.units.steps(duration, field) == 0 or done == self.total_steps)

    def evaluates(self, done: int) -> bool:
        """Whether to evaluate after `done` steps: when it is due, and at each save, so that the best can be kept."""
        saves = self.config.checkpoint.keep_best and self.every("checkpoint.every", done)
        return self.validation is not None and bool(saves or self.every("evaluation.every", done))


def settle(config: ConfigDict, workdir: Path) -> Run:
    """Opens the data, arranges the devices, and decides what every `auto` means on them.

    Raises:
      ConfigError: data, devices and config do not go together.
    """
    training = config.training
    data = open_dataset(config.data, "train", seed=config.seed, batch_size=training.batch_size)
    validation = None
    if config.evaluation.every:
        rows = training.batch_size // training.gradient_accumulation_steps
        validation = open_dataset(
            config.data, "validation", seed=config.seed, batch_size=rows, tokens=config.evaluation.tokens
        )
    tokenizer = tokenizers.load(parse_mixture(config.data.path)[0][0])
    tokens_per_step = training.batch_size * config.data.sequence_length
    units = Units(tokens_per_step, data.num_windows / training.batch_size)
    total_steps = units.steps(training.duration, "training.duration")
    units = dataclasses.replace(units, total_steps=total_steps)

    mesh = make_mesh(config.mesh)
    config = resolve(config, mesh, data.vocab_size)
    trainer = make_trainer(config, mesh, total_steps, functools.partial(units.steps, field="schedule"))
    check_fits(trainer.abstract_state, trainer.abstract_batch())
    if config.evaluation.sample_every:
        check_sample_prompt(config, tokenizer)
    return Run(config, workdir, data, validation, tokenizer, units, trainer, consoles.make_console())


def resolve(config: ConfigDict, mesh: Mesh, vocab_size: int) -> FrozenConfigDict:
    """The config for these devices and this tokenizer, complete.

    Raises:
      ConfigError: the batch does not divide over the mesh, or the model has no room for the vocabulary.
    """
    config = ConfigDict(config).unlock()
    if 0 < config.model.vocab_size < vocab_size:
        raise ConfigError(
            f"model.vocab_size = {config.model.vocab_size}: must be at least {vocab_size}, the size of the "
            "tokenizer of data.path"
        )
    rows = config.training.batch_size // config.training.gradient_accumulation_steps
    if rows % batch_devices(mesh):
        raise ConfigError(
            f"training.batch_size / training.gradient_accumulation_steps = {counted(rows, 'row')}: must be "
            f"divisible by the {batch_devices(mesh)} devices of mesh.data x mesh.fsdp"
        )
    config.model = ConfigDict(
        resolve_model(
            config.model,
            platform=jax.default_backend(),
            vocab_size=vocab_size,
            sequence_length=config.data.sequence_length,
            packed=config.data.windows == "packed",
        )
    )
    return FrozenConfigDict(config)


def check_sample_prompt(config: FrozenConfigDict, tokenizer: Tokenizer) -> None:
    """Raises ConfigError for samples that could not be drawn, before the first step instead of at the first sample."""
    evaluation, context = config.evaluation, config.model.max_positions
    try:
        length = len(tokenizer.encode(evaluation.sample_prompt)) + 1  # the begin token
    except UnicodeEncodeError:
        raise ConfigError(f"evaluation.sample_prompt = {evaluation.sample_prompt!r}: must be text") from None
    if length > context:
        raise ConfigError(
            f"evaluation.sample_prompt = {evaluation.sample_prompt[:40]!r}: its {length} tokens, with the begin token, "
            f"must not exceed the context, model.max_positions = {context}"
        )
    if not evaluation.sample_tokens:
        raise ConfigError("evaluation.sample_tokens = 0: must be at least 1 where evaluation.sample_every is set")


def show_settings(run: Run) -> None:
    params = run.trainer.abstract_state.params
    facts = consoles.derived_facts(
        run.config,
        count_parameters(params),
        run.flops_per_token,
        run.peak,
        run.tokens_per_step,
        run.total_steps,
        jax.devices(),
        run.trainer.mesh.shape,
        summarize(plan(run.config.optimizer, params)),
    )
    facts["run"] |= consoles.epochs_facts(run.data, run.total_steps, run.validation)
    facts["run"]["config"] = f"{configs.hash_of(run.config)} (hash of all settings that affect the results)"
    consoles.print_settings(run.console, run.config, facts)


def open_checkpoints(run: Run) -> Checkpoints:
    steps_of = functools.partial(run.units.steps, field="checkpoint.keep_every")
    return Checkpoints(run.workdir, run.config.checkpoint, steps_of)


def start(run: Run, checkpoints: Checkpoints) -> tuple[TrainState, dict[str, Any], list[str]]:
    """The state to go on from, what the steps since the last row came to, and what there is to say. In this order:

    1. the newest readable checkpoint of this workdir, if it is of the same run;
    2. the parameters of another run, if `training.init_from` names one;
    3. fresh parameters.
    """
    saved, interval = checkpoints.metadata(), {}
    if saved is not None:
        changes = check_compatible(saved, run.config, run.data.fingerprint())
        state, saved = checkpoints.restore(run.trainer.abstract_state)
        step, interval = int(state.step), saved.get("interval", {})
        jump = rate_change(saved["config"], run.config, run.units, step) if step < run.total_steps else []
        notes = [f"resumed from step {step}", *(f"changed: {change}" for change in changes), *jump]
    elif run.config.training.init_from:
        other = run.config.training.init_from
        check = functools.partial(check_warm_start, config=run.config, tokenizer_hash=run.data.tokenizer_hash)
        like = run.trainer.abstract_state.params
        params, source = load_params(other, like=like, ema=None, check=check, setting="training.init_from")
        state = run.trainer.init(params)
        notes = [f"starting from the parameters of {other}, step {source['step']}", *check(source)]
    else:
        state, notes = run.trainer.init(), []
    step = int(state.step)
    if jax.process_index() == 0 and step < run.total_steps:
        run.tokenizer.save(run.workdir)
        sets = {"data": run.data.identity(), "validation": run.windows_scored}
        record_start(run.workdir, run.config, step, **sets)
    return state, interval, notes


# --- The run ---------------------------------------------------------------------------------------------------------


def train(run: Run, checkpoints: Checkpoints, state: TrainState, interval: dict[str, Any], notes: list[str]) -> None:
    """From the state's step to the last one, or to a signal; whatever ends it, what is done is saved and drawn."""
    config, start_step = run.config, int(state.step)
    best, more_notes = best_so_far(run.workdir, run.windows_scored, start_step)
    notes = notes + more_notes
    if start_step >= run.total_steps:
        notes.append(f"nothing to do: the run is at step {start_step} of {run.total_steps} (training.duration)")
        consoles.print_notes(run.console, notes)
        return
    throughput = Throughput(run.tokens_per_step)
    with (
        MetricsWriter(run.workdir, config.logging.tensorboard, start_step or None, config) as writer,
        consoles.TrainingView(run.console, run.total_steps, start_step, CONVENTION) as view,
        StopRequest() as stop,
    ):
        consoles.print_notes(run.console, notes)
        progress = Progress(
            view,
            writer,
            throughput,
            every=run.units.steps(config.logging.every, "logging.every"),
            last_step=run.total_steps,
            tokens_per_step=run.tokens_per_step,
            flops_per_token=run.flops_per_token[CONVENTION],
            peak=run.peak,
            interval=interval,
        )
        with throughput.pause("compile"):
            train_step = compile_step(run.trainer, view)
            evaluate = make_evaluation(run)
        batches = device_batches(run, start_step)
        profile = config.training.profile
        profiler = Profiler(run.workdir, run.units.steps(profile, "training.profile") if profile else None)
        scores: dict[str, float] = {}
        done = start_step

        while done < run.total_steps and not stop.reached(done):
            profiler.before(done)
            with throughput.waiting_for_data():
                batch = next(batches)
            state, metrics = train_step(state, batch)
            done += 1
            progress.push(done, metrics)
            profiler.after(done, state)

            fresh_scores: dict[str, float] = {}
            if run.evaluates(done):
                progress.read()
                with throughput.pause("evaluation"), view.busy("evaluating"):
                    scores = fresh_scores = evaluate(state)
                progress.add(done, scores)
                view.validated(done, scores, best=scores["validation/loss"] < best)
                best = min(best, scores["validation/loss"])
            if run.every("checkpoint.every", done):
                progress.flush()
                with throughput.pause("checkpoint"), view.busy("saving"):
                    save(run, checkpoints, state, fresh_scores, progress.interval)
            if run.every("evaluation.sample_every", done):
                progress.flush()
                with throughput.pause("sampling"), view.busy("sampling"):
                    view.note(sample(run, state, writer))

        progress.flush()
        profiler.close()
        stopped = done < run.total_steps
        if stopped:
            save(run, checkpoints, state, {}, progress.interval)
        with throughput.pause("checkpoint"):
            checkpoints.wait()
        speed = throughput.overall().tokens_per_second
    summary = consoles.run_summary(
        throughput,
        step=done,
        tokens=done * run.tokens_per_step,
        mfu=progress.mfu(speed),
        peak=run.peak,
        convention=CONVENTION,
        memory=memory(),
        train_loss=progress.train_loss,
        validation=scores,
        best_validation_loss=best if scores else None,
    )
    title = f"stopped by {stop.name} at step {done}, checkpoint saved" if stopped else "finished"
    consoles.print_summary(run.console, title, summary)
    if config.logging.plots and jax.process_index() == 0:
        from gptjax.training.plots import plot_run  # matplotlib is slow to import, and wanted only now

        for path in plot_run(run.workdir):
            run.console.print(f"plot: {path}", soft_wrap=True)


def compile_step(trainer: Trainer, view: consoles.TrainingView) -> Callable:
    """The training step, compiled before the first batch is touched, so that its time and memory are known apart."""
    started = time.perf_counter()
    members.begin("compiling")
    with view.busy("compiling"):
        compiled = trainer.compile_train_step(trainer.abstract_batch())
        members.wait_for_all()
    members.begin("reading the first batch")
    view.compiled(time.perf_counter() - started)
    analysis = compiled.memory_analysis()
    if analysis is not None:
        state, work = analysis.argument_size_in_bytes, analysis.temp_size_in_bytes
        view.note(
            f"a step needs {consoles.bytes_text(state + work)} per device: "
            f"{consoles.bytes_text(state)} for state and batch, {consoles.bytes_text(work)} for computing"
        )
    return compiled


def device_batches(run: Run, start_step: int) -> Iterator[dict[str, jax.Array]]:
    """The batches from `start_step` on, each put on the mesh `data.prefetch` steps before it is used."""
    training, mesh = run.config.training, run.trainer.mesh
    accumulation = training.gradient_accumulation_steps
    rows = distributed.local_rows(mesh, training.batch_size, accumulation)
    host_batches = run.data.batches(start_step, rows, run.config.data.workers, run.total_steps - start_step)
    placed = (distributed.put_batch(mesh, b, rows, training.batch_size, accumulation) for b in host_batches)
    ahead: collections.deque[dict[str, jax.Array]] = collections.deque()
    for batch in placed:
        ahead.append(batch)
        if len(ahead) > run.config.data.prefetch:
            yield ahead.popleft()
    yield from ahead


def make_evaluation(run: Run) -> Callable[[TrainState], dict[str, Any]]:
    """state → validation metrics, of the moving average of the parameters where there is one."""
    token_bytes_V = np.zeros(run.config.model.vocab_size, np.float32)
    token_bytes_V[: run.tokenizer.vocab_size] = run.tokenizer.token_bytes()
    step = run.trainer.evaluation_step(token_bytes_V)
    return lambda state: perplexity.score(step, state.best_params, run.validation, run.trainer.mesh, run.rows_at_once)


def save(run: Run, checkpoints: Checkpoints, state: TrainState, scores: dict[str, Any], interval: dict) -> None:
    step = int(state.step)
    metadata = run_metadata(run.config, run.data.fingerprint(), step * run.tokens_per_step) | {"interval": interval}
    checkpoints.save(step, state, metadata, scores)


def sample(run: Run, state: TrainState, writer: MetricsWriter) -> str:
    """Continues the config's prompt, into `samples/` and where else texts are shown; returns it."""
    evaluation, step = run.config.evaluation, int(state.step)
    generator = Generator(state.best_params, run.config, run.tokenizer, begin_id=run.data.begin_id)
    (completion,) = generator.generate(
        [evaluation.sample_prompt], max_new_tokens=evaluation.sample_tokens, temperature=0.8, top_p=0.95
    )
    text = completion.prompt + completion.text
    writer.text(step, "sample", text)
    if jax.process_index() == 0:
        write_whole(run.workdir / "samples" / f"step_{step:08d}.txt", text)
    unknown = completion.unknown_characters
    note = f" (the tokenizer does not know {unknown!r} in the prompt)" if unknown else ""
    return f"sample at step {step}{note}:\n{text}"


if __name__ == "__main__":
    cli.run(main, outlives_console=True)
