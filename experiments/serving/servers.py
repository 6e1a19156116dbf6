"""Compares servers over HTTP: python experiments/serving/servers.py --workdir=RUN --torch_python=… --llama_python=…

`gptjax serve`, `transformers serve` with continuous batching, and `python -m llama_cpp.server` serve the same run,
which the project's own export writes for the other two. In a turn, a server gets some requests at the same moment, each
by its own client, and streams greedy texts; the servers take turns, and those that wait are stopped (SIGSTOP), since
some are busy even when they have nothing to do. A token counts when its text has arrived.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

from gptjax import tokenizer

flags.DEFINE_string("workdir", None, "A run whose model both other servers can hold.", required=True)
flags.DEFINE_list("sides", ["gptjax", "transformers", "llama.cpp"], "What to compare.")
flags.DEFINE_list("concurrency", ["1", "8", "32"], "Requests at the same moment.")
flags.DEFINE_integer("repeats", 3, "Turns per side.")
flags.DEFINE_string("torch_python", sys.executable, "The interpreter that has PyTorch and transformers[serving].")
flags.DEFINE_string("llama_python", sys.executable, "The interpreter that has llama-cpp-python[server].")
FLAGS = flags.FLAGS
REPOSITORY = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"OPENBLAS_NUM_THREADS": "1", "GPTJAX_HISTORY": "", "HF_HUB_OFFLINE": "1"}


class Server:
    """A server process, which is stopped except while `wave` runs."""

    def __init__(self, side: str, run: Path, folder: Path, most: int):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        port, self.side, export = str(self._port), side, str(folder / "transformers")
        if side == "gptjax":
            command = [
                sys.executable,
                "-m",
                "gptjax.serve",
                f"--workdir={run}",
                f"--port={port}",
                f"--num_slots={most}",
            ]
        elif side == "transformers":
            command = [FLAGS.torch_python, "-m", "transformers.cli.transformers", "serve", export, "--port", port]
            command += ["--continuous-batching", "--device", "cpu"]
        else:
            command = [FLAGS.llama_python, "-m", "llama_cpp.server", "--model", str(folder / "gguf/model.gguf")]
            command += ["--port", port, "--n_ctx", "0", "--interrupt_requests", "false"]
        self._model, self._log = (run.name if side == "gptjax" else export), folder / f"{side}.log"
        with self._log.open("w") as log:
            self.process = subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=log, env=ENVIRONMENT)
        began = time.monotonic()
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port)).close()
                break
            except OSError:
                if self.process.poll() is not None or time.monotonic() > began + 600:
                    raise RuntimeError(f"{side} did not start: {self._log.read_text()[-2000:]}") from None
                time.sleep(0.2)
        self.process.send_signal(signal.SIGSTOP)
        print(f"{side}: started in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)

    def wave(self, asked: list[tuple[str, int]]) -> tuple[float, list[tuple[float, str]]]:
        """The seconds until all texts are complete, and each text with the seconds to its first piece."""
        self.process.send_signal(signal.SIGCONT)
        try:
            with ThreadPoolExecutor(len(asked)) as clients:
                began = time.perf_counter()
                texts = list(clients.map(lambda each: self._streamed(*each), asked))
                return time.perf_counter() - began, texts
        finally:
            self.process.send_signal(signal.SIGSTOP)

    def _streamed(self, prompt: str, new: int) -> tuple[float, str]:
        body: dict[str, Any] = {
            "model": self._model,
            "prompt": prompt,
            "max_tokens": new,
            "temperature": 0,
            "stream": True,
        }
        if self.side == "llama.cpp":
            body["repeat_penalty"] = 1.0  # its default is 1.1
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=600)
        began, first, text = time.perf_counter(), None, ""
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            raise RuntimeError(f"{self.side}: {response.status} {response.read()[:500]!r}")
        while line := response.readline():
            if line.startswith(b"data: {"):
                event: dict[str, Any] = json.loads(line[6:])
                piece = "".join(choice["text"] for choice in event.get("choices", ()))
                if piece and first is None:
                    first = time.perf_counter() - began
                text += piece
        connection.close()
        return time.perf_counter() - began if first is None else first, text

    def close(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()


def requests(concurrency: int) -> list[tuple[str, int]]:
    """Pieces of the README of 60 to 400 characters, and the number of new tokens, 16 to 64."""
    draw, text = np.random.default_rng(concurrency), (REPOSITORY / "README.md").read_text()
    lengths, new = draw.integers(60, 401, concurrency), draw.integers(16, 65, concurrency)
    starts = draw.integers(0, len(text) - 400, concurrency)
    return [(text[a : a + length], int(count)) for a, length, count in zip(starts, lengths, new)]


def spread(values: list[float], digits: int = 0) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def exported(run: Path, folder: Path) -> None:
    for name, options in (("transformers", []), ("gguf", ["--format=gguf", "--dtype=float32"])):
        command = [sys.executable, "-m", "gptjax.export", f"--workdir={run}", f"--output={folder / name}", *options]
        subprocess.run(command, cwd=REPOSITORY, check=True, env=ENVIRONMENT, stdout=sys.stderr)
    (found,) = (folder / "gguf").glob("*.gguf")
    found.rename(folder / "gguf/model.gguf")


def main(argv: list[str]) -> None:
    del argv
    run, counts = Path(FLAGS.workdir).resolve(), list(map(int, FLAGS.concurrency))
    own = tokenizer.load(run)
    print("| requests | server | tokens/s | to the first text, median s | last s | same texts as the first server's |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        exported(run, Path(name))
        servers = []
        try:
            servers += [Server(side, run, Path(name), max(counts)) for side in FLAGS.sides]
            for count in counts:
                turns: dict[str, list] = {server.side: [] for server in servers}
                for turn in range(FLAGS.repeats + 1):
                    for server in servers:
                        answer = server.wave(requests(count))
                        if turn:  # the first one warms up
                            turns[server.side].append(answer)
                expected = [text for _, text in turns[servers[0].side][0][1]]
                for side, answers in turns.items():
                    tokens = [sum(len(own.encode(text)) for _, text in texts) for _, texts in answers]
                    speeds = [number / seconds for number, (seconds, _) in zip(tokens, answers)]
                    firsts = [[first for first, _ in texts] for _, texts in answers]
                    same = min(sum(a == b for a, (_, b) in zip(expected, texts)) for _, texts in answers)
                    cells = (spread(speeds), spread([statistics.median(each) for each in firsts], 2))
                    cells += (spread([max(each) for each in firsts], 2), f"{same} of {count}")
                    print(f"| {count} | {side} | " + " | ".join(cells) + " |", flush=True)
        finally:
            for server in servers:
                server.close()


if __name__ == "__main__":
    app.run(main)
