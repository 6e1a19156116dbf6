"""The memory that `gptjax export` needs beside the parameters: python experiments/export_memory/measure.py

Writes a random Llama of the size of GPT-2 as a folder of transformers, imports it as a run, exports that in several
ways, each in a process of its own, and prints the largest memory of each process in multiples of the parameters, less
what the same command needs for a tiny model.
"""

from __future__ import annotations

import multiprocessing
import resource
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
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


def export_run(folder: Path, flags: list[str], peak: multiprocessing.Value) -> None:
    from gptjax import export

    export.flags.parse(["export", f"--workdir={folder / 'run'}", f"--output={folder / 'out'}", "--check=own", *flags])
    export.main([])
    peak.value = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def alone(function, *arguments) -> int:
    """Calls a function in a new process, and returns the number that it leaves."""
    processes = multiprocessing.get_context("spawn")
    number = processes.Value("q", 0)
    process = processes.Process(target=function, args=(*arguments, number))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{function.__name__} failed")
    return number.value


def main() -> None:
    peaks: dict[str, dict[str, int]] = {}
    sizes: dict[str, int] = {}
    for size, settings in SIZES.items():
        folder = Path(tempfile.mkdtemp())
        sizes[size] = alone(write_run, folder, settings)
        for way, flags in WAYS.items():
            peaks.setdefault(way, {})[size] = alone(export_run, folder, flags)
            shutil.rmtree(folder / "out")
        shutil.rmtree(folder)
    print(f"\nparameters: {sizes['large'] / 1e6:,.0f} MB in float32\n")
    print("| export | largest memory, in parameters |\n|---|---|")
    for way, peak in peaks.items():
        print(f"| {way} | {(peak['large'] - peak['small']) / (sizes['large'] - sizes['small']):.2f} |")


if __name__ == "__main__":
    main()
