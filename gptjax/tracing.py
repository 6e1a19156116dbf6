"""Which documents a run was trained on at a step, and where they come from: what `prepare trace` shows."""

from __future__ import annotations

import json
from pathlib import Path

from ml_collections import FrozenConfigDict
from rich.text import Text

from gptjax.config import ConfigError, Units
from gptjax.corpus.trace import Part, Tracer
from gptjax.terminal import Console, one_line, write_raw


def show_row(console: Console, workdir: str, step: int, row: int, whole: bool) -> None:
    """Prints the documents of one row of one training batch; `whole`: with what the row leaves out of them.

    Raises:
      ConfigError: as `traced_row`.
    """
    folder, spans, title = traced_row(workdir, step, row)
    write_raw(console, title + "\n", "bold")
    tracer = Tracer(folder)
    for position, start, targets in spans:
        for part in tracer.parts(start, start + targets):
            write_raw(console, told(part, position + part.start - start, whole).append("\n"))


def traced_row(workdir: str, step: int, row: int) -> tuple[Path, list[list[int]], str]:
    """(prepared folder, `Dataset.spans`, what it is) of a row of a run's batch.

    Raises:
      ConfigError: the run, its data, the step or the row is not there, or the data is not what it was.
    """
    from gptjax.data import open_dataset  # Grain and JAX: nothing else here needs them
    from gptjax.training.checkpoint import saved_config, saved_metadata

    config = saved_config(workdir)
    size, length = config.training.batch_size, config.data.sequence_length
    quickly = FrozenConfigDict({**config.data, "verify": False})
    dataset = open_dataset(quickly, "train", seed=config.seed, batch_size=size)
    saved = saved_metadata(workdir)
    there, here = saved and saved["fingerprint"], json.loads(json.dumps(dataset.fingerprint()))
    if saved and there != here:
        other = ", ".join(name for name in here if there.get(name) != here[name])
        raise ConfigError(
            f"data.path = {config.data.path!r}: is not what {workdir} was trained on; different are: {other}"
        )
    total = Units(size * length, dataset.num_windows / size).steps(config.training.duration, "training.duration")
    if not 1 <= step <= total:
        raise ConfigError(f"--step = {step}: the run has steps 1 to {total}")
    if not 0 <= row < size:
        raise ConfigError(f"--row = {row}: a batch has rows 0 to {size - 1}")
    source, spans = dataset.spans(step - 1, row)
    title = f"step {step} of {total}, row {row} of {size}: {length} positions, from {source.folder}"
    return source.folder, spans.tolist(), title


def told(part: Part, position: int, whole: bool) -> Text:
    """What is known of a document in a row. position: the one whose target is the part's first token."""
    tokens = f"tokens {part.first} to {part.first + len(part.ids) - 1} of {len(part.document)}"
    known = {"source": part.source, "uri": part.uri, "license": part.license, "language": part.language, "id": part.id}
    lines = [f"\npositions {position} to {position + len(part.ids) - 1} predict {tokens} of a document"]
    lines += [
        f"  {name:<9} {one_line(str(value)) if value not in (None, '') else 'not known'}"
        for name, value in known.items()
    ]
    lines.append(f"  {'from':<9} {part.where}\n")
    before, after = (part.before + "⟦", "⟧" + part.after) if whole else ("", "")
    return Text.assemble(("\n".join(lines), "cyan"), (before, "dim"), part.text, (after, "dim"))
