"""Serves a run over HTTP, as OpenAI's API and as a chat page: python -m gptjax.serve --workdir=runs/mine

  … --port=9000 --checkpoint=best --num_slots=8             another port; which parameters; texts written at a time
  … --adapter=poems --adapter=runs/letters                  also the run with an adapter, each by its own model name
  … --host=0.0.0.0 --token_file=token.txt                   for other machines; clients need the token
  … --weights=int8 --max_seconds=60 --max_length=512        less memory; limits of a request

It prints an address: open it in a browser to chat, or give it to any client of OpenAI's API (base_url=ADDRESS/v1):
/v1/models, /v1/completions, /v1/chat/completions (for a run that was trained on conversations), with streaming. What a
request draws depends only on its prompt, settings and seed, not on other requests. /health and /metrics (Prometheus)
are for monitoring. Ctrl-C or SIGTERM ends: running requests may finish within --grace seconds.

Only programs on this machine reach the server, unless --host says otherwise; then a token is required. The token may
also be in the environment variable GPTJAX_TOKEN, where other users of the machine do not see it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import time
from pathlib import Path
from typing import Any

import jax

from gptjax.command_line import cli
from gptjax.command_line.flags import Flags, given_run
from gptjax.command_line.runtime import use_compilation_cache
from gptjax.config import ConfigError
from gptjax.conversation import Renderer, template_of
from gptjax.display.formatting import counted
from gptjax.display.terminal import Console, one_line
from gptjax.files.paths import local_path
from gptjax.inference.decode import WEIGHTS as WEIGHT_TYPES
from gptjax.inference.devices import decoding_mesh
from gptjax.inference.engine import Engine
from gptjax.inference.generate import Generator
from gptjax.runs.trained_model import TrainedModel, load_trained_model

VARIABLE = "GPTJAX_TOKEN"

flags = Flags()
WORKDIR, CHECKPOINT, EMA, OWN_FUNCTIONS = flags.define_run()
HOST = flags.DEFINE_string("host", "127.0.0.1", "The address to listen at; 0.0.0.0: every one of this machine.")
PORT = flags.DEFINE_integer("port", 8000, "The port to listen at; 0: any that is free.", 0, 65535)
TOKEN = flags.DEFINE_string("token", None, f"What clients must send as API key. Better in --token_file or {VARIABLE}.")
TOKEN_FILE = flags.DEFINE_string("token_file", None, "A file whose only line is the token.")
CORS_ORIGIN = flags.DEFINE_multi_string(
    "cors_origin", [], "Web pages of this origin (https://example.com, or *) may call the server; may be repeated."
)
NAME = flags.DEFINE_string("name", None, "The model's name for clients. Default: the name of the run's folder.")
NUM_SLOTS = flags.DEFINE_integer("num_slots", 8, "Texts that are written at the same time.", 1)
SPECULATION = flags.DEFINE_integer(
    "num_speculative_tokens",
    0,
    "Tokens that each step copies from prompt and text for the model to check; 0: none.",
    0,
    32,
)
MAX_WAITING = flags.DEFINE_integer("max_waiting", 256, "Requests that may wait for a slot; more get status 429.", 1)
MAX_LENGTH = flags.DEFINE_integer("max_length", 0, "Most tokens of prompt and text together; 0: the context.", 0)
MAX_SECONDS = flags.DEFINE_float("max_seconds", 600.0, "A request that takes longer is ended.", 0.001)
MAX_CHOICES = flags.DEFINE_integer("max_choices", 128, "Most texts of one request: its prompts times n.", 1, 128)
MAX_REQUESTS = flags.DEFINE_integer("max_requests", 512, "Most open requests; more get status 429.", 1)
MAX_BODY_BYTES = flags.DEFINE_integer("max_body_bytes", 4 << 20, "Most bytes of a request's body.", 1)
PATIENCE = flags.DEFINE_float("patience", 30.0, "Seconds that a client may take to send or read before it is cut.", 0.1)
GRACE = flags.DEFINE_float("grace", 30.0, "Seconds for running requests to finish when the server ends.", 0.0)
WEIGHTS = flags.DEFINE_enum(
    "weights", None, WEIGHT_TYPES, "The type in which matrices are stored and multiplied (see gptjax sample --help)."
)
ADAPTER = flags.DEFINE_multi_string(
    "adapter", [], "An adapter that is served by its own name (see gptjax sample --help); may be repeated."
)
MESH = flags.define_mesh()


def main(argv: list[str]) -> None:
    del argv
    serve()


def serve() -> None:
    notes = Console(stderr=True, soft_wrap=True)
    given_run(WORKDIR)
    check_installed()
    # These import starlette and uvicorn, which are extras.
    from gptjax.serving.app import Server
    from gptjax.serving.guards import Guard, Limits, is_loopback
    from gptjax.serving.models import Served
    from gptjax.serving.process import Process, listening

    token = chosen_token()
    if token is None and not is_loopback(HOST.value):
        raise ConfigError(
            f"--host={HOST.value}: other machines can reach this address, so clients need a token: give --token_file, "
            f"the environment variable {VARIABLE}, or --token"
        )
    check_origins()
    socket = listening(HOST.value, PORT.value)
    use_compilation_cache(worth_keeping=0.0)
    generator, renderer, model, adapters = load_generators(notes)
    engine = start_engine(generator, adapters, notes)
    served = Served(
        name=served_name(),
        engine=engine,
        generator=generator,
        renderer=renderer,
        fingerprint=f"step-{model.metadata['step']}-{model.params_hash}",
    )
    limits = Limits(
        seconds=MAX_SECONDS.value,
        body_bytes=MAX_BODY_BYTES.value,
        choices=MAX_CHOICES.value,
        requests=MAX_REQUESTS.value,
        patience=PATIENCE.value,
    )
    guard = Guard(token, is_loopback(HOST.value), CORS_ORIGIN.value)
    server = Server(served, limits, guard, lambda note: report(notes, note))
    process = Process(
        server.application(CORS_ORIGIN.value),
        server,
        GRACE.value,
        started=lambda: say_hello(notes, served, socket.getsockname()[1], token is not None),
        stopping=lambda running: say_goodbye(notes, running),
    )
    try:
        process.run([socket])
    finally:
        engine.close(drain=False)
    notes.print("stopped", style="dim")


# --- What is checked first


def check_installed() -> None:
    for package in ("starlette", "uvicorn", "prometheus_client"):
        if importlib.util.find_spec(package) is None:
            raise ConfigError(f"gptjax serve needs the package {package}: pip install 'gptjax[serve]'")


def chosen_token() -> str | None:
    """The token that clients must send; None: none is wanted.

    Raises:
      ConfigError: it is empty, has other characters than an HTTP header may have, or is given twice.
    """
    if TOKEN.value is not None and TOKEN_FILE.value is not None:
        raise ConfigError(f"--token_file={TOKEN_FILE.value}: must not be given together with --token")
    if TOKEN.value is not None:
        source, token = "--token", TOKEN.value
    elif TOKEN_FILE.value is not None:
        source = f"--token_file={TOKEN_FILE.value}"
        path = local_path(TOKEN_FILE.value, "--token_file")
        if not path.is_file():
            raise ConfigError(f"{source}: must be a file; there is none")
        token = path.read_bytes()[:10_000].decode("utf-8", "replace").strip()
    elif VARIABLE in os.environ:
        source, token = f"the environment variable {VARIABLE}", os.environ[VARIABLE]
    else:
        return None
    if not token or not token.isascii() or not token.isprintable() or " " in token or len(token) > 1000:
        raise ConfigError(f"{source}: must be 1 to 1000 letters, digits and signs of ASCII, without spaces")
    return token


def check_origins() -> None:
    for origin in CORS_ORIGIN.value:
        scheme, _, host = origin.partition("://")
        if origin != "*" and not (scheme in ("http", "https") and host and "/" not in host):
            raise ConfigError(f"--cors_origin={origin}: must be * or an origin such as https://example.com")


# --- The model


def served_name() -> str:
    """The name of the run's model for clients."""
    return NAME.value or Path(WORKDIR.value).resolve().name


def load_generators(
    notes: Console,
) -> tuple[Generator, Renderer | None, TrainedModel, dict[str, Generator]]:
    """The run's generator, what makes prompts from conversations, the run's model, and the adapters by name.

    Raises:
      ConfigError: the run's files do not belong together, or an adapter does not fit the run.
    """
    model = load_trained_model(
        WORKDIR.value, CHECKPOINT.value, EMA.value, OWN_FUNCTIONS.value, decoding_mesh(MESH.value)
    )
    renderer = None
    if template := model.fingerprint.get("template"):
        renderer = Renderer(template_of(template, "template"), model.tokenizer)
    options: dict[str, Any] = {"weights": WEIGHTS.value, "batch_size": NUM_SLOTS.value}
    base = model.generator(**options)
    adapters: dict[str, Generator] = {}
    for name, adapter in model.adapters(ADAPTER.value).items():
        if Path(name).name in (served_name(), *adapters):
            raise ConfigError(f"--adapter={name}: another model is served by the name {Path(name).name!r} (see --name)")
        adapters[Path(name).name] = model.generator(adapter, **options)
    kind = f"template {renderer.template.name}" if renderer else "no chat template: it continues texts"
    notes.print(
        f"{WORKDIR.value}: step {model.metadata['step']:,} ({CHECKPOINT.value}), {model.num_parameters:,} parameters, "
        f"{base.weights} on {jax.default_backend()}, {kind}",
        style="dim",
    )
    return base, renderer, model, adapters


def start_engine(generator: Generator, adapters: dict[str, Generator], notes: Console) -> Engine:
    began = time.perf_counter()
    notes.print(
        f"compiling for {counted(NUM_SLOTS.value, 'slot')}: some seconds, on a busy machine a minute", style="dim"
    )
    engine = Engine(
        generator,
        num_slots=NUM_SLOTS.value,
        max_context=MAX_LENGTH.value or None,
        max_waiting=MAX_WAITING.value,
        max_adapters=len(adapters),
        num_speculative_tokens=SPECULATION.value,
    )
    for name, with_adapter in adapters.items():
        engine.add_adapter(name, with_adapter)
    engine.start(wait_for_all=False)
    rest = "" if engine.is_compiled else "; the programs of longer ones follow, and a text that needs one waits"
    notes.print(
        f"{counted(engine.metrics.num_slots, 'slot')}, context {engine.max_context:,} tokens, compiled for texts of up "
        f"to {engine.first_context:,} in {time.perf_counter() - began:.1f} s{rest}",
        style="dim",
    )
    return engine


# --- What is said


def say_hello(notes: Console, served: Any, port: int, needs_token: bool) -> None:
    host = HOST.value if HOST.value not in ("0.0.0.0", "::") else "localhost"
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    chat = served.renderer is not None
    route = "chat/completions" if chat else "completions"
    asked: dict[str, Any] = {"model": served.name}
    asked |= {"messages": [{"role": "user", "content": "Hello"}]} if chat else {"prompt": "Once", "max_tokens": 32}
    key = " -H 'Authorization: Bearer TOKEN'" if needs_token else ""
    notes.print(f"serving {', '.join(served.names())} (Ctrl-C ends)")
    notes.print(f"  page     {address}/")
    notes.print(f"  API      {address}/v1  (also /health and /metrics)")
    notes.print(
        f"  example  curl {address}/v1/{route}{key} -H 'Content-Type: application/json' -d '{json.dumps(asked)}'"
    )


def report(notes: Console, note: dict[str, Any]) -> None:
    """One line about a request; what monitors ask all the time is left out."""
    if note["path"] in ("/health", "/metrics") and note["status"] == 200:
        return
    parts = [
        time.strftime("%H:%M:%S"),
        f"{note['status'] or '?':>3}",
        f"{note['method']} {one_line(note['path'])[:60]}",
    ]
    answers = note.get("answers")
    if answers is not None:
        usage = answers.usage
        new, seconds = usage["completion_tokens"], note["seconds"]
        parts.append(f"{usage['prompt_tokens']:,} → {counted(new, 'token')}, {new / max(seconds, 1e-9):,.0f}/s")
    parts.append(f"{note['seconds']:.2f} s")
    if note["status"] == 499:
        parts.append("the client hung up")
    notes.print("  ".join(parts), style="dim" if (note["status"] or 500) < 400 else "yellow")


def say_goodbye(notes: Console, running: int) -> None:
    if running:
        notes.print(f"ending after {counted(running, 'running request')}, at most {GRACE.value:g} s (Ctrl-C: at once)")


if __name__ == "__main__":
    cli.run(main, flags)
