"""A load test of `gptjax serve`: requests of every kind, kind clients and bad ones, against a real server process.

    python experiments/serving/load.py --requests=1000 --clients=16

It trains a tiny run for one step, asks a server for each text alone, and then sends all requests from many clients at
the same time: whole and streamed texts, requests that are given up after the first piece, connections that are cut in
the middle of a body, and bodies that are not JSON or ask for what cannot be. It ends with an error if a text differs
from the one that was written alone, if an answer is missing, if /metrics counts other numbers than the clients or an
error of the server, or if the server's memory grows by more than a tenth in the second half.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PROMPTS, NEW_TOKENS = 40, 24
KINDS = ("whole", "streamed", "given up", "cut off", "not JSON", "wrong field")
SHARES = (35, 35, 10, 8, 6, 6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--workdir", help="a run to serve; default: one that is trained for a step")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = Path(given.workdir) if given.workdir else trained(Path(folder))
        with open(f"{folder}/log", "w+") as log:
            process, port = started(run, log)
            try:
                test(port, run.name, process.pid, given)
            finally:
                process.send_signal(signal.SIGTERM)
                status = process.wait(60)
            log.seek(0)
            text = log.read()
    print(f"| tracebacks in the server's log | {text.count('Traceback')} |")
    print(f"| exit status after SIGTERM | {status} |")
    if status or "Traceback" in text:
        sys.exit(text[-3000:])


def trained(folder: Path) -> Path:
    sys.path.insert(0, str(REPOSITORY / "tests/support"))
    from prepared_folders import random_documents, write_prepared
    from training_runs import train_run

    from gptjax.config import default
    from gptjax.settings import freeze

    config = default()
    config.model.update(num_layers=2, width=32, num_heads=2)
    documents = [document % 200 + 10 for document in random_documents(60, 40)]
    path = write_prepared(folder / "data", train=documents)
    config.data.update(path=str(path), sequence_length=128)
    config.training.update(duration="1 steps", batch_size=8)
    config.evaluation.every = ""
    config.logging.update(tensorboard=False, plots=False)
    train_run(freeze(config), folder / "tiny")
    return folder / "tiny"


def started(run: Path, log) -> tuple[subprocess.Popen, int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "gptjax.serve", f"--workdir={run}", f"--port={port}", "--max_waiting=1000"]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=log, env=os.environ | {"GPTJAX_HISTORY": ""})
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return process, port
        except OSError:
            time.sleep(0.2)
    log.seek(0)
    sys.exit(f"the server did not start: {log.read()[-2000:]}")


def test(port: int, model: str, pid: int, given: argparse.Namespace) -> None:
    bodies = [
        {"model": model, "prompt": f"text {n}", "seed": n, "max_tokens": NEW_TOKENS, "temperature": 0.9 * (n % 2)}
        for n in range(PROMPTS)
    ]
    alone = [whole(port, body) for body in bodies]
    draw = random.Random(0)
    kinds = draw.choices(KINDS, SHARES, k=given.requests)
    which = [draw.randrange(PROMPTS) for _ in kinds]
    before, began = figures(port), time.monotonic()
    rss, lock, done = [memory(pid)], threading.Lock(), [0]
    outcomes: collections.Counter = collections.Counter()

    def one(kind: str, n: int) -> None:
        outcome = send(port, kind, bodies[n], alone[n])
        with lock:
            outcomes[kind, outcome] += 1
            done[0] += 1
            if done[0] in (given.requests // 2, given.requests):
                rss.append(memory(pid))

    with concurrent.futures.ThreadPoolExecutor(given.clients) as pool:
        list(pool.map(one, kinds, which))
    seconds = time.monotonic() - began
    after = settled(port)
    complete = sum(count for (_, outcome), count in outcomes.items() if outcome == "as alone")
    counted = {status: after.get(status, 0) - before.get(status, 0) for status in ("400", "500", "finished")}
    refused = sum(count for (_, outcome), count in outcomes.items() if outcome == "refused with a sentence")
    print(f"{given.requests} requests from {given.clients} clients in {seconds:.0f} s\n")
    print("| kind | outcome | count |\n|---|---|--:|")
    for (kind, outcome), count in sorted(outcomes.items()):
        print(f"| {kind} | {outcome} | {count} |")
    print("\n| | |\n|---|--:|")
    print(f"| answers with status 400: by the clients, by /metrics | {refused}, {counted['400']:.0f} |")
    print(f"| answers with status 500, errors of the server, by /metrics | {counted['500']:.0f} |")
    print(f"| texts completed or cancelled, by /metrics | {counted['finished']:.0f} |")
    print("| memory before, halfway, after (MiB) | " + ", ".join(f"{x:.0f}" for x in rss) + " |")
    expected = {"whole": "as alone", "streamed": "as alone", "given up": "hung up", "cut off": "hung up"}
    wrong = {key: n for key, n in outcomes.items() if expected.get(key[0], "refused with a sentence") != key[1]}
    problems = [f"unexpected outcomes: {wrong}"] * bool(wrong)
    problems += [f"/metrics counts {counted['400']} refusals"] * (counted["400"] != refused)
    problems += [f"/metrics counts {counted['500']} errors of the server"] * bool(counted["500"])
    # A client that gives up at once may be gone before its request is read.
    most = complete + sum(kind == "given up" for kind in kinds)
    problems += [f"/metrics counts {counted['finished']} texts"] * (not complete <= counted["finished"] <= most)
    problems += [f"memory grew: {rss}"] * (rss[-1] > 1.1 * rss[1])
    if problems:
        sys.exit("; ".join(problems))


def send(port: int, kind: str, body: dict, alone: str) -> str:
    if kind in ("whole", "streamed"):
        text = whole(port, body) if kind == "whole" else streamed(port, body)
        return "as alone" if text == alone else "another text"
    if kind == "given up":
        hang_up(port, json.dumps(body | {"stream": True}).encode(), cut=0)
        return "hung up"
    if kind == "cut off":
        hang_up(port, json.dumps(body).encode(), cut=10)
        return "hung up"
    status, answer = post(port, b'{"prompt": ' if kind == "not JSON" else json.dumps(body | {"n": "many"}).encode())
    is_sentence = status == 400 and bool(json.loads(answer)["error"]["message"])
    return "refused with a sentence" if is_sentence else f"status {status}"


def post(port: int, body: bytes) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    answer = response.status, response.read()
    connection.close()
    return answer


def whole(port: int, body: dict) -> str:
    status, answer = post(port, json.dumps(body).encode())
    return json.loads(answer)["choices"][0]["text"] if status == 200 else f"status {status}"


def streamed(port: int, body: dict) -> str:
    status, answer = post(port, json.dumps(body | {"stream": True}).encode())
    events = [line[6:] for line in answer.decode().split("\n\n") if line.startswith("data: ")]
    if status != 200 or events[-1] != "[DONE]":
        return f"status {status}, not complete"
    return "".join(json.loads(event)["choices"][0]["text"] for event in events[:-1])


def hang_up(port: int, body: bytes, cut: int) -> None:
    """Sends a request, without the last `cut` bytes of its body, and closes the connection."""
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", port), timeout=300) as connection:
        connection.sendall(head + body[: len(body) - cut])
        if not cut:
            connection.recv(1)


def figures(port: int) -> dict[str, float]:
    """From /metrics: answers of completions by status, and texts that have ended."""
    from prometheus_client.parser import text_string_to_metric_families

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    found: dict[str, float] = collections.defaultdict(float)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "gptjax_http_requests_total" and sample.labels["path"] == "/v1/completions":
                found[sample.labels["status"]] += sample.value
            if sample.name == "gptjax_requests_finished_total":
                found["finished"] += sample.value
            if sample.name in ("gptjax_requests_running", "gptjax_requests_waiting"):
                found["busy"] += sample.value
    return found


def settled(port: int) -> dict[str, float]:
    """The figures when no request is left."""
    deadline = time.monotonic() + 60
    while (found := figures(port))["busy"]:
        if time.monotonic() > deadline:
            sys.exit("requests of clients that had gone were not ended within a minute")
        time.sleep(0.1)
    return found


def memory(pid: int) -> float:
    """Resident MiB of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main()
