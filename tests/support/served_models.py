"""A tiny random model behind a real server of this process, on a socket of its own."""

import contextlib
import threading

from random_models import make_model

from gptjax.conversation import Renderer, load_template
from gptjax.inference.engine import Engine
from gptjax.inference.generate import Generator
from gptjax.serving.app import Server
from gptjax.serving.guards import Guard, Limits
from gptjax.serving.models import Served
from gptjax.serving.process import Process, listening
from gptjax.tokenizer import ByteTokenizer


def make_served(template="turns", engine=None, **options):
    """A run whose engine has compiled and waits for requests."""
    params, config = make_model(**options)
    tokenizer = ByteTokenizer()
    generator = Generator(params, config, tokenizer)
    renderer = Renderer(load_template(template), tokenizer) if template else None
    made = engine(generator) if engine else Engine(generator, num_slots=4)
    if engine is None:
        made.start()
    return Served(name="tiny", engine=made, generator=generator, renderer=renderer, fingerprint="step-0")


@contextlib.contextmanager
def running(served, token=None, grace=5.0, notes=None, **limits):
    """Yields (address, process) of a server that runs until the end of the block."""
    socket = listening("127.0.0.1", 0)
    server = Server(served, Limits(**limits), Guard(token, loopback=True), (notes if notes is not None else []).append)
    ready = threading.Event()
    process = Process(server.application(), server, grace, started=ready.set)
    thread = threading.Thread(target=process.run, args=([socket],), daemon=True)
    thread.start()
    assert ready.wait(60)
    try:
        yield f"http://127.0.0.1:{socket.getsockname()[1]}", process
    finally:
        process.should_exit = True
        thread.join(60)
        assert not thread.is_alive()
