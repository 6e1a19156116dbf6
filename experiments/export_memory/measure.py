"""The memory that `gptjax export` and `gptjax import` need: python experiments/export_memory/measure.py --of=export

Writes a random Llama of the size of GPT-2 as a folder of transformers, imports it as a run and exports that (or, with
--of=import, imports the folder in several ways), each in a process of its own, and prints the largest memory of each
process in multiples of the parameters, less what the same command needs for a tiny model: over the whole command, and
in each of its phases (Linux only).
"""

from __future__ import annotations

import multiprocessing
import resource
import shutil
import sys
import tempfile
from pathlib import Path

from absl import app, flags

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
flags.DEFINE_enum("of", "export", ["export", "import"], "What is measured.")
flags.DEFINE_integer("vocab_size", 50_304, "Tokens of the model that is measured.")
FLAGS = flags.FLAGS
PROCESSES = multiprocessing.get_context("spawn")
EXPORTS = {  # what is exported → flags
    "float32, one file": ["--dtype=float32"],
    "float32, files of 50 MB": ["--dtype=float32", "--shard_size=50MB"],
    "bfloat16, one file": ["--dtype=bfloat16"],
    "bfloat16, files of 50 MB": ["--dtype=bfloat16", "--shard_size=50MB"],
}
IMPORTS = {  # what is imported → the type of the files, flags
    "float32, one device": ("float32", []),
    "bfloat16, one device": ("bfloat16", []),
    "bfloat16, --mesh=fsdp=8": ("bfloat16", ["--mesh=fsdp=8"]),
}
SIZES = {
    "large": dict(num_layers=12, width=768, num_heads=12, feedforward_width=2048),
    "small": dict(num_layers=2, width=32, num_heads=4, feedforward_width=64, vocab_size=512),
}


def write_folder(folder: Path, sizes: dict, dtype: str, bytes_of_params: multiprocessing.Value) -> None:
    """Writes a random model as a folder of transformers in files of 50 MB, with the tokenizer of bytes."""
    import jax

    from gptjax.config import default
    from gptjax.interop.huggingface.families import FAMILIES
    from gptjax.interop.huggingface.model_folder import write_model
    from gptjax.interop.tokenizer_folder import special_ids, write_tokenizer
    from gptjax.model.families import family_named, family_of
    from gptjax.tokenizer import ByteTokenizer

    section = default().model
    section.update(sizes | dict(max_positions=256, dtype="float32"))
    model = family_named("decoder").resolve(section, platform="cpu", vocab_size=512, sequence_length=256)
    params = family_of(model).init_params(jax.random.key(0))
    bytes_of_params.value = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    tokenizer = ByteTokenizer()
    folder.mkdir(parents=True)
    options = dict(special_ids=special_ids(tokenizer, None, tokenizer.eos_id), facts={}, shard_size=50_000_000)
    write_model(folder, FAMILIES["llama"], model, params, dtype=dtype, **options)
    write_tokenizer(folder, tokenizer, None, begin_id=tokenizer.eos_id, context=256)


class Watch:
    """Notes the largest memory in bytes of this process within calls of some functions.

    Args:
      phases: where it is noted.
    """

    def __init__(self, phases: multiprocessing.Array):
        self.phases = phases

    def __call__(self, holder: object, name: str, *indices: int) -> None:
        """Watches a function; indices: of the phases that its calls are."""
        function, turns = getattr(holder, name), iter(indices)

        def watched(*arguments, **options):
            Path("/proc/self/clear_refs").write_text("5")  # forgets the largest memory so far
            result = function(*arguments, **options)
            self.phases[next(turns)] = largest_memory()
            return result

        setattr(holder, name, watched)


OF_EXPORT = ("read the checkpoint", "check its sums", "write", "the run's logits", "read back", "the export's logits")
OF_IMPORT = ("read the folder", "write the run", "read it back", "its logits")


def export_run(folder: Path, typed: list[str], peak: multiprocessing.Value, phases: multiprocessing.Array) -> None:
    """Exports a run, and leaves the largest memory in bytes, of the whole and of each phase of an export."""
    from gptjax import export
    from gptjax.interop.huggingface import model_folder, parity
    from gptjax.training.checkpoints import format as checkpoint_format

    watch = Watch(phases)
    watch(checkpoint_format, "_load", 0)
    watch(checkpoint_format, "_check_sums", 1)
    watch(export, "write_model", 2)
    watch(parity, "own_logits", 3, 5)
    watch(model_folder.Opened, "params", 4)
    export.flags.parse(["export", f"--workdir={folder / 'run'}", f"--output={folder / 'out'}", "--check=own", *typed])
    export.main([])
    peak.value = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def import_folder(folder: Path, typed: list[str], peak: multiprocessing.Value, phases: multiprocessing.Array) -> None:
    """Imports a folder, and leaves the largest memory in bytes, of the whole and of each phase of an import."""
    import importlib

    from gptjax.interop.huggingface import model_folder, parity

    command = importlib.import_module("gptjax.import")
    watch = Watch(phases)
    watch(model_folder.Opened, "params", 0)
    watch(command, "write_run", 1)
    watch(command, "load_for_inference", 2)
    watch(parity, "own_logits", 3)
    command.flags.parse(["import", f"--output={folder / 'run'}", "--check=none", *typed])
    command.main(["import", str(folder / "theirs")])
    peak.value = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def largest_memory() -> int:
    """The largest resident memory of this process, in bytes, since it was last forgotten."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def alone(function, *arguments) -> None:
    """Calls a function in a new process."""
    process = PROCESSES.Process(target=function, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{function.__name__} failed")


def largest(function, folder: Path, typed: list[str], names: tuple[str, ...]) -> list[int]:
    """The largest memory of a new process that calls the function: of the whole, and of each phase."""
    peak, phases = PROCESSES.Value("q", 0), PROCESSES.Array("q", len(names))
    alone(function, folder, typed, peak, phases)
    return [max(peak.value, *phases), *phases]


def exports(folder: Path, sizes: dict, of_params: multiprocessing.Value) -> dict[str, list[int]]:
    alone(write_folder, folder / "theirs", sizes, "float32", of_params)
    largest(import_folder, folder, [], OF_IMPORT)
    peaks = {}
    for way, typed in EXPORTS.items():
        peaks[way] = largest(export_run, folder, typed, OF_EXPORT)
        shutil.rmtree(folder / "out")
    return peaks


def imports(folder: Path, sizes: dict, of_params: multiprocessing.Value) -> dict[str, list[int]]:
    peaks = {}
    for way, (dtype, typed) in IMPORTS.items():
        alone(write_folder, folder / "theirs", sizes, dtype, of_params)
        peaks[way] = largest(import_folder, folder, typed, OF_IMPORT)
        for made in ("theirs", "run"):
            shutil.rmtree(folder / made)
    return peaks


def main(argv: list[str]) -> None:
    del argv
    names, measure = (OF_EXPORT, exports) if FLAGS.of == "export" else (OF_IMPORT, imports)
    of_params = {size: PROCESSES.Value("q", 0) for size in SIZES}
    peaks = {}
    SIZES["large"]["vocab_size"] = FLAGS.vocab_size
    for size, settings in SIZES.items():
        with tempfile.TemporaryDirectory() as folder:
            peaks[size] = measure(Path(folder), settings, of_params[size])
    large, small = (of_params[size].value for size in ("large", "small"))
    least = max(peak[0] for peak in peaks["small"].values())
    print(f"\nparameters: {large / 1e6:,.0f} MB in float32; a tiny model: {least / 1e6:,.0f} MB in all\n")
    print(f"| {FLAGS.of} | whole | {' | '.join(names)} |\n|{'---|' * (len(names) + 2)}")
    for way, peak in peaks["large"].items():
        multiples = [(each - peaks["small"][way][0]) / (large - small) for each in peak]
        print(f"| {way} | {' | '.join(f'{multiple:.2f}' for multiple in multiples)} |")


if __name__ == "__main__":
    app.run(main)
