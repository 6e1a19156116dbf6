"""Trains a model: python -m gptjax.train --config=configs/NAME.py[:arg] --workdir=DIR [--config.section.field=value …]

A run is a directory. Give the same command again to resume from the last checkpoint, even after a crash: the run
continues exactly, because data, dropout and schedule depend only on the step, which is in the checkpoint. SIGTERM and
Ctrl-C save a checkpoint first and exit cleanly. Before the first step they only say that nothing was saved.

--config.training.batch_per_device=auto computes as many sequences at once as fit into memory. A run that cannot fit is
refused before it is compiled, with the nearest that does. At the end, predictions are printed beside what came.

--help_config lists every field of a config with its default, its meaning and what is allowed. The settings of the run
are printed at the start and saved as config.json.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from gptjax import config as configs
from gptjax.command_line import cli
from gptjax.command_line.flags import Flags
from gptjax.command_line.runtime import run_in_turn, use_compilation_cache
from gptjax.config import ConfigError
from gptjax.data.prepared import SOURCE_PREFIX
from gptjax.display.formatting import bytes_text
from gptjax.evaluation.validation import validate
from gptjax.files.paths import run_folder
from gptjax.forecast.fits import refuse_compiled
from gptjax.forecast.review import review
from gptjax.inference.generate import Generator
from gptjax.model.families import validate_model
from gptjax.parallel import distributed, members
from gptjax.parallel.agreement import named, settings
from gptjax.planning import Plan
from gptjax.runs.shown_settings import derived_facts, epochs_facts, print_row, print_settings
from gptjax.runs.start import check_start, starting_state
from gptjax.runs.training_run import TrainingRun, held_workdir, open_run
from gptjax.settings import freeze
from gptjax.training.checkpoints.folder import JUDGED_BY
from gptjax.training.checkpoints.manager import Checkpoints
from gptjax.training.checkpoints.run_metadata import own_code, run_metadata
from gptjax.training.companions import COMPANIONS
from gptjax.training.hardware import bytes_per_device, described, memory
from gptjax.training.interrupt import StopRequest
from gptjax.training.memory_check import explained_memory
from gptjax.training.metrics import Throughput
from gptjax.training.profiler import Profiler
from gptjax.training.records import console as consoles
from gptjax.training.records.best import BestScore
from gptjax.training.records.history import record_start
from gptjax.training.records.progress import Progress
from gptjax.training.records.writers import MetricsWriter, write_whole
from gptjax.training.rollout import batches_of
from gptjax.training.state import TrainState

flags = Flags()
_CONFIG = flags.define_config()
_WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder. If it exists, the run in it is resumed.")
_processes = flags.define_processes()

CONVENTION = "causal"  # how the FLOPs of every MFU are counted


def main(argv: list[str]) -> int:
    for flag in (_CONFIG, _WORKDIR):
        if flag.value is None:
            raise ConfigError(f"--{flag.name} is missing (see --help)")
    use_compilation_cache()
    run_in_turn()
    meeting, timeouts = _processes()
    with StopRequest(every=None) as stop, members.joined(meeting, timeouts):
        members.begin("checking --workdir and the config")
        workdir = run_folder(_WORKDIR.value, "--workdir")
        configs.validate(_CONFIG.value)
        validate_model(_CONFIG.value)
        config = freeze(_CONFIG.value)
        members.agree(settings(config))
        members.meet_devices()
        members.begin("opening the data")
        run = open_run(config, workdir)
        facts = named("data", run.data.fingerprint()) | named("model", dict(run.config.model.items()))
        members.agree(facts | named("the code of", own_code(run.config)))
        members.begin("preparing --workdir")
        with held_workdir(run), jax.set_mesh(run.mesh), explained_memory(run.config):
            members.check_shared(run.workdir, "--workdir")
            members.begin("opening the checkpoints")
            with open_checkpoints(run) as checkpoints:
                check_start(run.plan, run.data, checkpoints)
                show_settings(run)
                members.begin("restoring or making the state")
                run = run.accompanied(checkpoints)
                state, interval, notes = start(run, checkpoints)
                train(run, checkpoints, state, interval, notes, stop)
    return 0


# --- Before the first step -------------------------------------------------------------------------------------------


def show_settings(run: TrainingRun) -> None:
    plan = run.plan
    facts = derived_facts(plan)
    facts["run"] |= epochs_facts(run.data, plan.total_steps, run.validation)
    facts["run"]["config"] = f"{configs.hash_of(plan.config)} (hash of all settings that affect the results)"
    print_settings(run.console, plan.config, facts)
    print_row(run.console, plan.trainer.objective.shown_row(run.data, run.tokenizer))
    consoles.print_notes(run.console, run.notes)


def open_checkpoints(run: TrainingRun) -> Checkpoints:
    steps_of = functools.partial(run.plan.units.steps, field="checkpoint.keep_every")
    return Checkpoints(run.workdir, run.config.checkpoint, steps_of, run.plan.trainer.frozen)


def start(run: TrainingRun, checkpoints: Checkpoints) -> tuple[TrainState, dict[str, Any], list[str]]:
    """Returns the result of `starting_state`, and writes to the workdir what must exist before the first step."""
    state, interval, notes = starting_state(run.plan, run.data, checkpoints)
    step = int(state.step)
    if jax.process_index() == 0 and step < run.plan.total_steps:
        run.tokenizer.save(run.workdir)
        if run.source_tokenizer is not None:
            run.source_tokenizer.save(run.workdir, SOURCE_PREFIX)
        sets = {"data": run.data.identity(), "validation": run.windows_scored, COMPANIONS: run.companions.identities}
        hardware = described(list(run.mesh.devices.flat), run.plan.peak)
        record_start(run.workdir, run.config, step, **sets, hardware=hardware)
    return state, interval, notes


# --- The run ---------------------------------------------------------------------------------------------------------


def train(
    run: TrainingRun,
    checkpoints: Checkpoints,
    state: TrainState,
    interval: dict[str, Any],
    notes: list[str],
    stop: StopRequest,
) -> None:
    """Trains from the state's step to the last step or until a signal, then saves and plots the run."""
    config, plan, start_step = run.config, run.plan, int(state.step)
    score = plan.trainer.objective.scores[0]
    best = BestScore(run.workdir, score, run.windows_scored, start_step)
    notes = notes + best.risen(start_step, checkpoints.best(score, run.windows_scored))
    if start_step >= plan.total_steps:
        end = f"training.duration = {config.training.duration!r} ends it at step {plan.total_steps}"
        notes.append(f"nothing to do: the run is at step {start_step}, and {end}; a longer one goes on from there")
        consoles.print_notes(run.console, notes)
        return
    throughput = Throughput(plan.tokens_per_step)
    with (
        MetricsWriter(run.workdir, config.logging.tensorboard, start_step or None, config) as writer,
        make_view(run, start_step) as view,
    ):
        consoles.print_notes(run.console, notes + best.notes)
        progress = make_progress(run, view, writer, throughput, interval)
        with throughput.pause("compile"):
            train_step = functools.partial(compile_step(run.plan, view), **run.companions.models)
            evaluate = make_evaluation(run)
        next_batch = make_batches(run, start_step)
        profile = config.training.profile
        profiler = Profiler(run.workdir, plan.units.steps(profile, "training.profile") if profile else None)
        scores: dict[str, float] = {}
        done = start_step
        stop.begin(plan.trainer.objective.updates_per_rollout)

        while done < plan.total_steps and not stop.reached(done):
            profiler.before(done)
            with throughput.waiting_for_data():
                batch = next_batch(state.params, done)
            state, metrics = train_step(state, batch)
            done += 1
            progress.push(done, metrics)
            profiler.after(done, state)

            fresh_scores: dict[str, float] = {}
            if plan.evaluates(done):
                progress.read()
                with throughput.pause("evaluation"), view.busy("evaluating"):
                    scores = fresh_scores = evaluate(state)
                    task_scores = run.ask_tasks(state)
                progress.add(done, scores | task_scores)
                view.validated(done, scores, best=best.improved_by(scores))
            if plan.every("checkpoint.every", done):
                progress.flush()
                with throughput.pause("checkpoint"), view.busy("saving"):
                    save(run, checkpoints, state, fresh_scores, progress.interval)
            if plan.every("evaluation.sample_every", done):
                progress.flush()
                with throughput.pause("sampling"), view.busy("sampling"):
                    view.note(write_sample(run, state, writer))

        progress.flush()
        throughput.lap()  # the summary includes the steps since the last row
        profiler.close()
        if done < plan.total_steps:
            save(run, checkpoints, state, {}, progress.interval)
        with throughput.pause("checkpoint"):
            checkpoints.wait()
    stopped_by = stop.name if done < plan.total_steps else None
    show_end(run, done, stopped_by, progress, throughput, scores, best.value)
    show_review(run, done - start_step, done, progress.train_loss, throughput)
    consoles.print_notes(run.console, best.risen(done, checkpoints.best(score, run.windows_scored)))
    plot(run)


def make_view(run: TrainingRun, start_step: int) -> consoles.TrainingView:
    scores = run.plan.trainer.objective.scores
    return consoles.TrainingView(run.console, run.plan.total_steps, start_step, CONVENTION, scores)


def make_progress(
    run: TrainingRun,
    view: consoles.TrainingView,
    writer: MetricsWriter,
    throughput: Throughput,
    interval: dict[str, Any],
) -> Progress:
    plan = run.plan
    return Progress(
        view,
        writer,
        throughput,
        every=plan.units.steps(run.config.logging.every, "logging.every"),
        last_step=plan.total_steps,
        tokens_per_step=plan.tokens_per_step,
        flops_per_token=plan.flops_per_token[CONVENTION],
        peak=plan.peak,
        interval=interval,
    )


def compile_step(plan: Plan, view: consoles.TrainingView) -> Callable:
    """Compiles the training step before the first batch is read, so that its time and memory are known separately."""
    members.begin("compiling")
    with view.busy("compiling"):
        compiled, seconds = plan.compiled_step
        members.wait_for_all()
    members.begin("reading the first batch")
    view.compiled(seconds)
    needs, analysis = refuse_compiled(plan, bytes_per_device()), compiled.memory_analysis()
    if needs is not None and analysis is not None:
        state = analysis.argument_size_in_bytes
        view.note(
            f"a step needs {bytes_text(needs)} per device: {bytes_text(state)} for state and batch, "
            f"{bytes_text(needs - state)} for computing"
        )
    return compiled


def device_batches(run: TrainingRun, start_step: int) -> Iterator[dict[str, jax.Array]]:
    """Yields the batches from `start_step` on. Each is put on the mesh `data.prefetch` steps before it is used."""
    training, data = run.config.training, run.config.data
    accumulation = training.gradient_accumulation_steps
    rows = distributed.local_rows(run.mesh, training.batch_size, accumulation)
    batches = run.data.batches(start_step, rows, data.workers, run.plan.total_steps - start_step)
    return distributed.put_ahead(run.mesh, batches, rows, training.batch_size, accumulation, data.prefetch)


def make_batches(run: TrainingRun, start_step: int) -> Callable[[Any, int], Mapping[str, jax.Array]]:
    """Returns the function (params, step) → batch of the objective, which may hold what the model writes."""
    objective, mesh = run.plan.trainer.objective, run.mesh
    batches = device_batches(run, start_step)
    return batches_of(objective.rollout(mesh, run.tokenizer), batches, objective.updates_per_rollout)


def make_evaluation(run: TrainingRun) -> Callable[[TrainState], dict[str, Any]]:
    """Returns a function from state to validation metrics; it uses the moving average of the parameters, if any."""
    trainer, scores_of = run.plan.trainer, run.plan.trainer.objective.scores_of
    step = functools.partial(trainer.evaluation_step(run.tokenizer), **run.companions.models)
    return lambda state: validate(step, scores_of, state.best_params, run.validation, run.mesh, run.plan.rows_at_once)


def save(run: TrainingRun, checkpoints: Checkpoints, state: TrainState, scores: dict[str, Any], interval: dict) -> None:
    step = int(state.step)
    score = run.plan.trainer.objective.scores[0]
    metadata = run_metadata(run.config, run.data.fingerprint(), step * run.plan.tokens_per_step)
    metadata |= {
        "interval": interval,
        JUDGED_BY: [score.name, score.higher_is_better],
        COMPANIONS: run.companions.identities,
    }
    checkpoints.save(step, state, metadata, scores)


def write_sample(run: TrainingRun, state: TrainState, writer: MetricsWriter) -> str:
    """Continues the config's prompt; writes the text to `samples/` and to the metrics writers, and returns it."""
    evaluation, step = run.config.evaluation, int(state.step)
    generator = Generator(
        state.best_params,
        run.config,
        run.tokenizer,
        source_tokenizer=run.source_tokenizer,
        begin_id=run.data.begin_id,
        objective=run.config.training.objective,
    )
    (completion,) = generator.generate(
        [evaluation.sample_prompt], max_new_tokens=evaluation.sample_tokens, temperature=0.8, top_p=0.95
    )
    text = completion.prompt + generator.separator + completion.text
    writer.text(step, "sample", text)
    if jax.process_index() == 0:
        write_whole(run.workdir / "samples" / f"step_{step:08d}.txt", text)
    unknown = completion.unknown_characters
    note = f" (the tokenizer does not know {unknown!r} in the prompt)" if unknown else ""
    return f"sample at step {step}{note}:\n{text}"


# --- After the last step ---------------------------------------------------------------------------------------------


def show_end(
    run: TrainingRun,
    step: int,
    stopped_by: str | None,
    progress: Progress,
    throughput: Throughput,
    scores: dict[str, float],
    best: float,
) -> None:
    """Prints why the run ended, and its results. scores: of the last evaluation, if there was one."""
    plan = run.plan
    summary = consoles.run_summary(
        throughput,
        step=step,
        tokens=step * plan.tokens_per_step,
        mfu=progress.mfu(throughput.overall().tokens_per_second),
        peak=plan.peak,
        convention=CONVENTION,
        memory=memory(),
        train_loss=progress.train_loss,
        scores=plan.trainer.objective.scores,
        validation=scores,
        best=best if scores else None,
    )
    title = f"stopped by {stopped_by} at step {step}, checkpoint saved" if stopped_by else "finished"
    consoles.print_summary(run.console, title, summary)


def show_review(run: TrainingRun, steps: int, done: int, loss: float | None, throughput: Throughput) -> None:
    """Prints what was predicted of these steps beside what came, and records both for later predictions."""
    loss = loss if done == run.plan.total_steps else None
    rows, notes = review(run.plan, throughput, steps, memory(), loss)
    if rows:
        consoles.print_summary(run.console, "predicted and measured", rows)
    consoles.print_notes(run.console, notes)


def plot(run: TrainingRun) -> None:
    if run.config.logging.plots and jax.process_index() == 0:
        from gptjax.training.records.plots import plot_run  # imported late because matplotlib is slow to import

        for path in plot_run(run.workdir):
            run.console.print(f"plot: {path}", soft_wrap=True)
        report = f"{cli.command('report')} --workdir={run.workdir}"
        run.console.print(f"a page to share, with data, settings and cost: {report}", soft_wrap=True, style="dim")


if __name__ == "__main__":
    cli.run(main, flags, outlives_console=True)
