"""Functions for workers that end their process at documents that say so: POISON, a place, and a way."""

import functools
import importlib
import os
import resource
import signal
import time

from gptjax.corpus.engine.local import LocalProcesses


def allocate():
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 33, limits[1]))
    try:
        bytearray(1 << 36)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


WAYS = {
    "exit": lambda: os._exit(3),
    "segfault": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "memory": allocate,
    "loop": lambda: time.sleep(600),
}
# A function of each stage of the project that is called with texts: module, name.
PLACES = {
    "extract": ("gptjax.corpus.sources.text", "_text"),
    "clean": ("gptjax.corpus.stages.clean", "repair"),
    "sketch": ("gptjax.corpus.duplicates.sketch", "exact_hashes"),
    "survey": ("gptjax.corpus.stages.survey", "split_texts"),
    "encode": ("gptjax.corpus.stages.encode", "_SplitOutput.append"),
}


def behave(text, place):
    for way, act in WAYS.items():
        if f"POISON {place} {way}" in text:
            act()


def own(document):
    behave(document["text"], "own")
    return document["text"]


def judge(text):
    behave(text, "rule")
    return False


def lengths(documents):
    for document in documents:
        behave(document["text"], "score")
    return [len(document["text"]) for document in documents]


class Poisoned(LocalProcesses):
    """Workers in which the functions of PLACES behave like their documents."""

    def run(self, function, items):
        return super().run(functools.partial(poisoned, function), items)


def poisoned(function, item):
    for place, (module, name) in PLACES.items():
        *owners, name = name.split(".")
        owner = functools.reduce(getattr, owners, importlib.import_module(module))
        if not isinstance(vars(owner)[name], _Bad):
            setattr(owner, name, _Bad(vars(owner)[name], place))
    return function(item)


class _Bad:
    def __init__(self, good, place):
        self.good, self.place = good, place

    def __call__(self, *given, **named):
        behave(str(given), self.place)
        return self.good(*given, **named)

    def __get__(self, instance, owner):
        return functools.partial(self, instance)
