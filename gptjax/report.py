"""A report on runs, to send to a colleague or to put online: python -m gptjax.report --workdir=runs/mine

  … --output=report                                     report.html and, with the extra `report`, report.pdf
  … --samples=4 --max_new_tokens=120                    texts of the best checkpoint, written now, with seeds 0 to 3
  … --samples=3 --prompts_file=prompts.txt              the first three prompts of a file, each with seed 0
  … --price='2.50 USD' --watts=700 --carbon=350         cost, energy and carbon, as estimates from what you state
  … --card=card.md --license=apache-2.0                 also the model card of the Hugging Face hub
  … --export=exports/mine                               with how to load what gptjax export wrote
  … --workdir=runs/a --workdir=runs/b                   a comparison: losses, differing settings, paired differences

The report says what a run's folder records: what the model is, how good it is, what it cost, its data, its limits, how
to load and to reproduce it. What is missing is said to be missing. The page is one file without outside resources; it
names no folder, host or user of this machine (--redact=WORD removes further words).
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from gptjax.command_line import cli
from gptjax.command_line.flags import Flags
from gptjax.command_line.runtime import use_compilation_cache
from gptjax.config import ConfigError
from gptjax.display.terminal import Console
from gptjax.files import write_aside
from gptjax.files.paths import existing_run, local_path, output_file
from gptjax.forecast.price import parse_price
from gptjax.inference.prompts import read_prompts
from gptjax.reporting.card import card, check_names
from gptjax.reporting.compare import comparison_of
from gptjax.reporting.document import Block, Document, Sample
from gptjax.reporting.effort import Prices
from gptjax.reporting.exports import export_blocks
from gptjax.reporting.facts import RunFacts, gather_all
from gptjax.reporting.page import page
from gptjax.reporting.pdf import can_write_pdf, pdf
from gptjax.reporting.privacy import names_of_machine, without_names
from gptjax.reporting.samples import generated
from gptjax.reporting.sections import report_of
from gptjax.training.checkpoints.run_metadata import version

flags = Flags()
WORKDIR = flags.DEFINE_multi_string("workdir", [], "The run's folder; several times: a comparison of the runs.")
OUTPUT = flags.DEFINE_string(
    "output", None, "Where to write: the name without its ending, or one file, .html or .pdf. Default: RUN/report."
)
NAME = flags.DEFINE_string("name", None, "The model's name. Default: that of the run's folder.")
ABOUT = flags.DEFINE_string("about", "", "A paragraph of yours, shown first: why the model was made, and by whom.")
SAMPLES = flags.DEFINE_integer(
    "samples", 0, "Number of texts to write with the best checkpoint; 0: show those that training wrote.", 0, 100
)
PROMPTS_FILE = flags.DEFINE_string(
    "prompts_file", None, "With --samples: a file of prompts, one per line, of which the first are taken."
)
MAX_NEW_TOKENS = flags.DEFINE_integer("max_new_tokens", 160, "Maximum number of tokens in a sample.", 1)
PRICE = flags.DEFINE_string("price", None, "The price of a device and hour, such as '2.50 USD', to estimate the cost.")
WATTS = flags.DEFINE_float("watts", None, "The power of a device in watts, to estimate the energy.", 0.0)
CARBON = flags.DEFINE_float("carbon", None, "Grams of CO₂ per kilowatt-hour, to estimate the carbon.", 0.0)
CARD = flags.DEFINE_string("card", None, "Also write the model card of the Hugging Face hub to this file.")
LICENSE = flags.DEFINE_string(
    "license", None, "With --card: the hub's identifier of the licence that you give the model, such as apache-2.0."
)
BASE_MODEL = flags.DEFINE_string("base_model", None, "With --card: the name on the hub of the model it started from.")
EXPORT = flags.DEFINE_multi_string(
    "export", [], "A folder or a .gguf file that gptjax export wrote of the run: the report says how to load it."
)
REDACT = flags.DEFINE_multi_string("redact", [], "A word that must not appear in the report. May be given many times.")


def main(argv: list[str]) -> None:
    del argv
    if not WORKDIR.value:
        raise ConfigError("--workdir is missing: must be the folder of a training run (see --help)")
    folders = [existing_run(folder, "--workdir") for folder in WORKDIR.value]
    check_flags()
    jax.config.update("jax_platforms", "cpu")  # a report computes little, and GPUs may be training
    files = output_files(folders)
    card_file = output_file(CARD.value, "--card") if CARD.value is not None else None
    price = parse_price(PRICE.value, "--price") if PRICE.value is not None else None
    facts = gather_all(folders, Prices(price, WATTS.value, CARBON.value), NAME.value)
    samples, rule = write_samples(facts[0]) if SAMPLES.value else (None, "")
    loading = [block for path in EXPORT.value for block in export_blocks(local_path(path, "--export"), facts[0])]
    document = make_document(facts, samples, rule, loading)
    document = without_names(document, names_of_machine(folders, REDACT.value))
    written = {path: page(document).encode() if path.suffix == ".html" else pdf(document) for path in files}
    if card_file:
        options: dict[str, Any] = {"about": ABOUT.value, "loading": loading, "made": made_by(), "words": REDACT.value}
        text = card(facts[0], LICENSE.value, base_model=BASE_MODEL.value, samples=samples, rule=rule, **options)
        written[card_file] = text.encode()
    console = Console(soft_wrap=True)
    for path, content in written.items():  # when all of it has been made
        with write_aside(path) as file:
            file.write(content)
        console.print(f"{'model card' if path == card_file else 'report'}: {path}")
    for sentence in [each for one in facts for each in one.missing]:
        console.print(sentence, style="dim")
    if OUTPUT.value is None and not can_write_pdf():
        console.print("no PDF: it needs the extra `report` (pip install 'gptjax[report]'); a browser prints the page")


def check_flags() -> None:
    """Raises ConfigError for flags that do not go together, before anything is read."""
    check_names(LICENSE.value, BASE_MODEL.value)
    unused: list[tuple[Any, bool, str]] = [
        *((flag, CARD.value is None, "requires --card=FILE") for flag in (LICENSE, BASE_MODEL)),
        *((flag, not SAMPLES.value, "requires --samples=N") for flag in (PROMPTS_FILE, MAX_NEW_TOKENS)),
    ]
    several = len(WORKDIR.value) > 1, "is for a report on one run, but --workdir names several"
    unused += [(flag, *several) for flag in (NAME, SAMPLES, CARD, EXPORT)]
    for flag, is_unused, why in unused:
        if flag.present and is_unused:
            raise ConfigError(f"--{flag.name}={flag.value}: {why}")


def output_files(folders: list[Path]) -> list[Path]:
    """The files to write; the PDF only if it can be written.

    Raises:
      ConfigError: a file cannot be written, or a PDF is asked for and cannot be made.
    """
    if OUTPUT.value is None:
        if len(folders) > 1:
            raise ConfigError("--output is missing: must name the file of a comparison, such as --output=compared.html")
        path = folders[0] / "report"
    else:
        path = local_path(OUTPUT.value, "--output")
    if path.suffix.lower() in (".html", ".pdf"):
        if path.suffix.lower() == ".pdf" and not can_write_pdf():
            raise ConfigError(f"--output={path}: a PDF needs the extra `report`: pip install 'gptjax[report]'")
        return [output_file(path.with_suffix(path.suffix.lower()), "--output")]
    kinds = (".html", ".pdf") if can_write_pdf() else (".html",)
    return [output_file(path.with_name(path.name + kind), "--output") for kind in kinds]


def write_samples(facts: RunFacts) -> tuple[list[Sample], str]:
    use_compilation_cache()
    prompts = None
    if PROMPTS_FILE.value is not None:
        prompts = read_prompts(local_path(PROMPTS_FILE.value, "--prompts_file"))
    return generated(facts.run.folder, SAMPLES.value, prompts, MAX_NEW_TOKENS.value)


def make_document(facts: list[RunFacts], samples: list[Sample] | None, rule: str, loading: Sequence[Block]) -> Document:
    if len(facts) > 1:
        return comparison_of(facts, made_by("runs"), ABOUT.value)
    return report_of(facts[0], made_by(), ABOUT.value, samples, rule, loading)


def made_by(what: str = "run") -> str:
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return f"Written on {today} by gptjax {version('gptjax') or ''} from the files of the {what}."


if __name__ == "__main__":
    cli.run(main, flags)
