"""One side of the comparison, in a separate process: python speed_sides.py SIDE FOLDER CONCURRENCY

FOLDER holds the model, written by `python speed_sides.py make FOLDER`. A side loads it, warms up, prints a line of JSON
with its facts, and then, for each line that it reads, submits CONCURRENCY requests at the same moment, waits until all
are finished, and prints the seconds, the seconds to each request's first token, and a digest of each request's tokens.

SIDE is gptjax (the engine), gptjax-int8, transformers (its continuous batching), or llama.cpp (a loop of calls of
`llama_decode`, each of which reads waiting prompts and one token of every text: what its server does, without HTTP).
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from sides import processor_seconds

VOCAB_SIZE, WIDTH, LAYERS, HEADS, KV_HEADS, FEEDFORWARD = 8_192, 384, 8, 6, 2, 1_024
CONTEXT, PIECE, SCALE = 256, 128, 3.0
Wave = Callable[[], tuple[list[float], list[list[int]]]]  # the seconds to each first token, and the tokens


class Tokenizer:
    """A tokenizer of token ids: the text does not matter here, and no token ends it."""

    vocab_size, bos_id, eos_id, unk_id, hash = VOCAB_SIZE, None, None, None, ""

    def decode_bytes(self, tokens) -> bytes:
        return b"x" * len(list(tokens))

    def decode(self, tokens) -> str:
        return "x" * len(list(tokens))


@dataclass(frozen=True)
class Config:
    model: Any


def requests(concurrency: int) -> list[tuple[list[int], int]]:
    """Prompts of 16 to 128 tokens, and the number of new tokens, 16 to 64, the same on every side."""
    draw = np.random.default_rng(concurrency)
    lengths, new = draw.integers(16, 129, concurrency), draw.integers(16, 65, concurrency)
    return [(draw.integers(0, VOCAB_SIZE, length).tolist(), int(count)) for length, count in zip(lengths, new)]


def model_section() -> Any:
    from gptjax.config import default
    from gptjax.model.resolve import resolve_model

    section = default().model
    section.update(vocab_size=VOCAB_SIZE, num_layers=LAYERS, width=WIDTH, num_heads=HEADS, num_kv_heads=KV_HEADS)
    section.update(head_width=WIDTH // HEADS, feedforward_width=FEEDFORWARD, tied_embeddings=True, dtype="float32")
    section.update(max_positions=CONTEXT)
    return resolve_model(section, platform="cpu", vocab_size=VOCAB_SIZE, sequence_length=CONTEXT)


def random_params() -> tuple[Any, Any]:
    """Random parameters, larger than those at the start of training, so that texts do not repeat one token."""
    import jax

    from gptjax.model.families import family_of

    family = family_of(model_section())
    params = family.init_params(jax.random.key(0))
    return family, jax.tree.map(lambda x: x * SCALE if x.ndim > 2 else x, params)


def make(folder: Path) -> None:
    """Writes the model by the project's own export, for transformers and as GGUF."""
    from gptjax.interop.gguf import write_gguf
    from gptjax.interop.huggingface.families import FAMILIES
    from gptjax.interop.huggingface.model_folder import write_model
    from gptjax.interop.huggingface.tensors import places_of, written_tensors
    from gptjax.tokenizer import ByteTokenizer

    family, params = random_params()
    theirs, model = FAMILIES["llama"], family.config
    folder.mkdir(parents=True, exist_ok=True)
    write_model(folder, theirs, model, params, special_ids=dict(bos_token_id=0, eos_token_id=None), facts={})
    places = places_of(theirs.layouts[0](model), family.declarations)
    tensors = list(written_tensors(places, theirs.constants(model), model, params))
    write_gguf(folder / "model.gguf", theirs.write(model), tensors, ByteTokenizer(), None, begin_id=None)


def gptjax_side(variant: str, folder: Path, concurrency: int) -> tuple[Wave, dict, Callable[[], int]]:
    import jax

    from gptjax.inference.engine import Engine
    from gptjax.inference.generate import Generator
    from gptjax.inference.sampling_params import SamplingParams

    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, duration, **_: compiled.append(event) if "backend_compile" in event else None
    )
    family, params = random_params()
    options = dict(weights=variant or None, batch_size=concurrency)
    generator = Generator(params, Config(family.config), Tokenizer(), **options)  # type: ignore[arg-type]
    engine = Engine(generator, num_slots=concurrency, piece=PIECE, prefix_tokens=0)
    engine.start()
    asked = requests(concurrency)

    def wave() -> tuple[list[float], list[list[int]]]:
        compiled.clear()
        running = [
            engine.submit(prompt, SamplingParams(max_tokens=new, temperature=0.0), begin=False, stream=False)
            for prompt, new in asked
        ]
        done = [request.result() for request in running]
        return [r.timings.time_to_first_token or 0.0 for r in done], [r.outputs[0].token_ids for r in done]

    return wave, {"jax": jax.__version__}, lambda: len(compiled)


def transformers_side(folder: Path, concurrency: int) -> tuple[Wave, dict]:
    import torch
    import transformers

    torch.set_num_threads(1)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa").eval()
    settings = transformers.GenerationConfig(max_new_tokens=64, do_sample=False, eos_token_id=-1, pad_token_id=0)
    with torch.inference_mode():
        sizes = transformers.ContinuousBatchingConfig(
            page_size=32, num_blocks=concurrency * CONTEXT // 32, max_batch_tokens=PIECE
        )
        manager = model.init_continuous_batching(generation_config=settings, continuous_batching_config=sizes)
        manager.start()
    asked = requests(concurrency)

    def wave() -> tuple[list[float], list[list[int]]]:
        began = time.perf_counter()
        ids = [manager.add_request(prompt, max_new_tokens=new, record_timestamps=True) for prompt, new in asked]
        results: dict[Any, Any] = {}
        while len(results) < len(ids):
            result = manager.get_result(timeout=600)
            if result is None:
                raise RuntimeError("transformers has stopped")
            if result.is_finished():
                results[result.request_id] = result
        firsts = [results[i].timestamps[0] - began for i in ids]
        return firsts, [results[i].generated_tokens for i in ids]

    return wave, {"torch": torch.__version__, "transformers": transformers.__version__}


def llama_side(folder: Path, concurrency: int) -> tuple[Wave, dict]:
    import llama_cpp as lib

    at_once = PIECE  # tokens per call
    lib.llama_backend_init()
    silent = lib.llama_log_callback(lambda *_: None)
    lib.llama_log_set(silent, ctypes.c_void_p(0))
    model = lib.llama_model_load_from_file(str(folder / "model.gguf").encode(), lib.llama_model_default_params())
    options = lib.llama_context_default_params()
    options.n_ctx, options.n_batch, options.n_ubatch = CONTEXT * concurrency, at_once, at_once
    options.n_seq_max = concurrency
    options.n_threads = options.n_threads_batch = 1
    options.type_k = options.type_v = 0  # float32, as on the other sides
    context = lib.llama_init_from_model(model, options)
    batch = lib.llama_batch_init(max(at_once, concurrency), 0, 1)
    asked = requests(concurrency)

    def call(entries: list[tuple[int, int, int, bool]]) -> dict[int, int]:
        """Reads tokens (row, position, token, whether the next one is wanted); returns the most probable next ones."""
        batch.n_tokens = len(entries)
        for i, (row, position, token, is_wanted) in enumerate(entries):
            batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, position, 1
            batch.seq_id[i][0], batch.logits[i] = row, is_wanted
        if code := lib.llama_decode(context, batch):
            raise RuntimeError(f"llama_decode: {code}")
        found = {}
        for i, (row, _, _, is_wanted) in enumerate(entries):
            if is_wanted:
                logits = np.ctypeslib.as_array(lib.llama_get_logits_ith(context, i), (VOCAB_SIZE,))
                found[row] = int(logits.argmax())
        return found

    def wave() -> tuple[list[float], list[list[int]]]:
        began = time.perf_counter()
        lib.llama_memory_clear(lib.llama_get_memory(context), False)
        firsts, texts, num_read = [0.0] * concurrency, [[] for _ in asked], [0] * concurrency
        while True:
            entries = []
            for row, (prompt, new) in enumerate(asked):
                if texts[row] and len(texts[row]) < new:
                    entries.append((row, len(prompt) + len(texts[row]) - 1, texts[row][-1], True))
            for row, (prompt, _) in enumerate(asked):
                piece = prompt[num_read[row] : num_read[row] + at_once - len(entries)]
                for place, token in enumerate(piece, num_read[row]):
                    entries.append((row, place, token, place == len(prompt) - 1))
                num_read[row] += len(piece)
            if not entries:
                return firsts, texts
            for row, token in call(entries).items():
                firsts[row] = firsts[row] or time.perf_counter() - began
                texts[row].append(token)

    return wave, {"llama-cpp-python": lib.__version__}


def main(side: str, folder: Path, concurrency: int) -> None:
    began = time.perf_counter()
    project, _, variant = side.partition("-")
    num_compiled: Callable[[], int] = lambda: 0  # noqa: E731
    if project == "gptjax":
        wave, versions, num_compiled = gptjax_side(variant, folder, concurrency)
    else:
        wave, versions = {"transformers": transformers_side, "llama.cpp": llama_side}[side](folder, concurrency)
    wave()
    print(json.dumps({"versions": versions, "seconds_to_first": time.perf_counter() - began}), flush=True)
    for _ in sys.stdin:
        began, used = time.perf_counter(), processor_seconds()
        firsts, texts = wave()
        answer = {"seconds": time.perf_counter() - began, "processor_seconds": processor_seconds() - used}
        digests = [zlib.crc32(np.array(text, np.int32).tobytes()) for text in texts]
        answer |= {"firsts": firsts, "tokens": sum(map(len, texts)), "digests": digests, "compiled": num_compiled()}
        print(json.dumps(answer), flush=True)
    os._exit(0)  # the thread of transformers' manager would keep the process alive


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(Path(sys.argv[2]))
    else:
        main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
