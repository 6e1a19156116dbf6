"""The memory that `gptjax export` needs beside the parameters: python experiments/export_memory/measure.py

Writes a random Llama of the size of GPT-2 as a folder of transformers, imports it as a run, exports that in several
ways, each in a process of its own, and prints the largest memory of each process in multiples of the parameters, less
what the same command needs for a tiny model: over the whole command, and in each of its phases (Linux only).
"""

from __future__ import annotations

import multiprocessing
import resource
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
PROCESSES = multiprocessing.get_context("spawn")
WAYS = {  # what is exported → flags
    "float32, one file": ["--dtype=float32"],
    "float32, files of 50 MB": ["--dtype=float32", "--shard_size=50MB"],
    "bfloat16, one file": ["--dtype=bfloat16"],
    "bfloat16, files of 50 MB": ["--dtype=bfloat16", "--shard_size=50MB"],
}
SIZES = {
    "large": dict(num_layers=12, width=768, num_heads=12, feedforward_width=2048, vocab_size=50_304),
    "small": dict(num_layers=2, width=32, num_heads=4, feedforward_width=64, vocab_size=512),
}


def write_run(folder: Path, sizes: dict, bytes_of_params: multiprocessing.Value) -> None:
    """Writes an imported run of random parameters, with the tokenizer of bytes."""
    import importlib

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
    theirs, tokenizer = folder / "theirs", ByteTokenizer()
    theirs.mkdir(parents=True)
    ids = special_ids(tokenizer, None, tokenizer.eos_id)
    write_model(theirs, FAMILIES["llama"], model, params, special_ids=ids, facts={})
    write_tokenizer(theirs, tokenizer, None, begin_id=tokenizer.eos_id, context=256)
    command = importlib.import_module("gptjax.import")
    command.flags.parse(["import", f"--output={folder / 'run'}", "--check=none"])
    command.main(["import", str(theirs)])


PHASES = ("read the checkpoint", "check its sums", "write", "the run's logits", "read back", "the export's logits")


def export_run(folder: Path, flags: list[str], peak: multiprocessing.Value, phases: multiprocessing.Array) -> None:
    """Exports a run, and leaves the largest memory in bytes, of the whole and of each of PHASES."""
    from gptjax import export
    from gptjax.interop.huggingface import model_folder, parity
    from gptjax.training.checkpoints import format as checkpoint_format

    def watch(holder: object, name: str, *indices: int) -> None:
        """Notes the largest memory within each call of a function; indices: of the phases that its calls are."""
        function, turns = getattr(holder, name), iter(indices)

        def watched(*arguments, **options):
            Path("/proc/self/clear_refs").write_text("5")  # forgets the largest memory so far
            result = function(*arguments, **options)
            phases[next(turns)] = largest_memory()
            return result

        setattr(holder, name, watched)

    watch(checkpoint_format, "_load", 0)
    watch(checkpoint_format, "_check_sums", 1)
    watch(export, "write_model", 2)
    watch(parity, "own_logits", 3, 5)
    watch(model_folder.Opened, "params", 4)
    export.flags.parse(["export", f"--workdir={folder / 'run'}", f"--output={folder / 'out'}", "--check=own", *flags])
    export.main([])
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


def main() -> None:
    peaks: dict[str, dict[str, list[int]]] = {}
    sizes: dict[str, int] = {}
    for size, settings in SIZES.items():
        folder, bytes_of_params = Path(tempfile.mkdtemp()), PROCESSES.Value("q", 0)
        alone(write_run, folder, settings, bytes_of_params)
        sizes[size] = bytes_of_params.value
        for way, flags in WAYS.items():
            peak, phases = PROCESSES.Value("q", 0), PROCESSES.Array("q", len(PHASES))
            alone(export_run, folder, flags, peak, phases)
            peaks.setdefault(way, {})[size] = [max(peak.value, *phases), *phases]
            shutil.rmtree(folder / "out")
        shutil.rmtree(folder)
    least = max(peaks[way]["small"][0] for way in WAYS)
    print(f"\nparameters: {sizes['large'] / 1e6:,.0f} MB in float32; a tiny model: {least / 1e6:,.0f} MB in all\n")
    print(f"| export | whole | {' | '.join(PHASES)} |\n|{'---|' * (len(PHASES) + 2)}")
    for way, peak in peaks.items():
        of_params = [(large - peak["small"][0]) / (sizes["large"] - sizes["small"]) for large in peak["large"]]
        print(f"| {way} | {' | '.join(f'{multiple:.2f}' for multiple in of_params)} |")


if __name__ == "__main__":
    main()
