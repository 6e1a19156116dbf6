"""A tiny random model behind a real server of this process, on a socket of its own."""

import contextlib
import threading

from random_models import make_model

from gptjax.conversation import Renderer, load_template
from gptjax.inference.engine import Engine
from gptjax.inference.engine_metrics import EngineMetrics
from gptjax.inference.generate import Generator
from gptjax.inference.request import Event, Request
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


class Speaker:
    """Stands for the engine: says `text` in two pieces; while `slow`, it says only the first one until it is cancelled.

    asked: the prompts and settings of all requests.
    """

    def __init__(self, generator):
        self.metrics, self.adapters, self.max_waiting = EngineMetrics(is_up=True), (), 9
        self.max_context, self.text, self.slow, self.asked = 400, "0123456789 and more", False, []

    def submit(self, prompt, params, listener, **rest):
        self.asked.append((prompt, params))
        request = Request("r", list(prompt), params, seed=0, listener=listener, wake=lambda: self._cut(request))
        request.deliver(Event(0, self.text[:10], (1,)))
        if not self.slow:
            request.deliver(Event(0, self.text[10:], (2,), None, "stop"))
        return request

    def _cut(self, request):
        if not request.is_finished:
            request.deliver(Event(0, "", (), None, "cancelled"))


@contextlib.contextmanager
def running(served, token=None, grace=5.0, notes=None, origins=(), **limits):
    """Yields (address, process) of a server that runs until the end of the block."""
    socket = listening("127.0.0.1", 0)
    guard = Guard(token, loopback=True, origins=origins)
    server = Server(served, Limits(**limits), guard, (notes if notes is not None else []).append)
    ready = threading.Event()
    process = Process(server.application(origins), server, grace, started=ready.set)
    thread = threading.Thread(target=process.run, args=([socket],), daemon=True)
    thread.start()
    assert ready.wait(60)
    try:
        yield f"http://127.0.0.1:{socket.getsockname()[1]}", process
    finally:
        process.should_exit = True
        thread.join(60)
        assert not thread.is_alive()
