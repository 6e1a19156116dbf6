"""All programs of the engine, compiled ahead of time by several threads, without running them or allocating anything.

A call uses a program that was compiled here if its arguments have the same shapes and places. On one device, arrays
must therefore all be committed to it (`devices.committed`).
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from gptjax.inference import shapes
from gptjax.inference.decode import DecodeState, arrange, decode, empty_cache, insert, read, score
from gptjax.inference.devices import devices_of, placed_shapes
from gptjax.inference.generate import Generator
from gptjax.inference.growing_text import GrowingText
from gptjax.inference.prefix import PrefixCache
from gptjax.inference.prompt_reading import starting
from gptjax.inference.request import Request
from gptjax.inference.sampling_params import SamplingParams

MOST_THREADS = 8

Program = tuple[Any, tuple, dict[str, Any]]  # a jitted function and the arguments of a call
_INDEX = np.int32(0)


class EnginePrograms:
    """Compiles the programs of an engine, those of short texts first.

    Args:
      prefix: as for `PromptReading`.
      when_done: is called with the seconds that it took when all are compiled, in another thread.
    """

    def __init__(
        self,
        generator: Generator,
        sizes: shapes.EngineShapes,
        prefix: PrefixCache | None,
        when_done: Callable[[float], None] = lambda seconds: None,
    ):
        self._generator, self._sizes, self._prefix = generator, sizes, prefix
        self._threads = ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1), "gptjax-compiling")
        self._when_done, self._began = when_done, time.perf_counter()
        with devices_of(generator):
            first, others = self._listed()
        self._num_left, self._lock = len(first) + len(others), threading.Lock()
        self._first, self._others = (
            [self._threads.submit(self._compile, program) for program in programs] for programs in (first, others)
        )

    def wait(self, for_all: bool) -> None:
        """Returns when the programs of short texts, or all programs, are compiled; raises what a compilation raises."""
        futures: list[Future] = self._first + self._others * for_all
        for future in futures:
            future.result()

    @property
    def are_all_compiled(self) -> bool:
        return not self._num_left

    def close(self) -> None:
        """Compiles no more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _compile(self, program: Program) -> None:
        function, arguments, options = program
        with devices_of(self._generator):  # each thread has its own setting
            function.lower(*arguments, **options).compile()
        with self._lock:
            self._num_left -= 1
            is_last = not self._num_left
        if is_last:
            self._when_done(time.perf_counter() - self._began)

    # --- Which programs there are. Arguments on the device are only described.

    def _listed(self) -> tuple[list[Program], list[Program]]:
        """The programs of texts with the fewest slots, and the others; those that are rarely needed are last."""
        generator, sizes = self._generator, self._sizes
        by_slots: list[list[Program]] = []
        scores: dict[int, Program] = {}
        last_1D: Any = None
        for slots in sizes.slots:
            by_slots.append([])
            if generator.family.reads_in_pieces:
                programs, last_1D = self._of_prompts(slots, scores)
                by_slots[-1] += programs
        request = Request("", [0], SamplingParams(), seed=0)
        text = GrowingText(request, 0, generator.tokenizer, limit=1, eos_id=None, begins=False)
        start = starting(generator, sizes, text, last_1D, sizes.slots[0])
        by_slots[0].insert(0, start)
        row = start[0].eval_shape(*start[1], **start[2])
        if row.cache is None:
            row = replace(row, cache=empty_cache.eval_shape(generator.family, slots=sizes.slots[0]))
        for slots, programs in zip(sizes.slots, by_slots):
            programs += self._of_batches(row, slots)
        return by_slots[0], [*itertools.chain(*by_slots[1:]), *scores.values()]

    def _of_prompts(self, slots: int, scores: dict[int, Program]) -> tuple[list[Program], Any]:
        """The programs that read prompts of up to `slots` tokens, and what they give to `start`; adds those that score
        pieces to `scores`, by their length."""
        family, params = self._generator.family, self._generator.params
        programs: list[Program] = [(empty_cache, (family,), {"slots": slots})]
        cache = self._placed(empty_cache.eval_shape(family, slots=slots))
        last_1D: Any = None
        for T in self._sizes.pieces:
            if T > slots:
                continue
            for R in sorted({1, self._sizes.together(T)}, reverse=True):
                inputs = np.zeros((R, T), np.int32), np.ones(R, np.int32)
                programs.append((read, (family, params, (cache,) * R, *inputs), {}))
            _, (x_1TD,), (last_1D,) = self._placed(read.eval_shape(*programs[-1][1]))
            scores[T] = score, (family, params, x_1TD, np.zeros((1, T), np.int32)), {}
        return programs, last_1D

    def _of_batches(self, row: DecodeState, slots: int) -> list[Program]:
        """The programs of batches with `slots` slots, and those that change the numbers of their rows and slots."""
        family, params, sizes = self._generator.family, self._generator.params, self._sizes
        row = self._placed(arrange.eval_shape(row, np.zeros(1, np.int32), slots=slots))
        programs: list[Program] = [(arrange, (row, np.zeros(1, np.int32)), {"slots": slots})]
        for rows in sizes.rows:
            state = self._placed(arrange.eval_shape(row, np.zeros(rows, np.int32), slots=slots))
            steps = family, params, state, _INDEX, np.ones(rows, bool)
            programs.append((decode, steps, {"num_proposed": sizes.num_proposed}))
            if rows > 1:
                programs.append((insert, (state, row, _INDEX), {}))
            if self._prefix is not None:
                programs += self._prefix.programs(state.cache)
            for other in shapes.neighbors(sizes.rows, rows):
                programs.append((arrange, (state, np.zeros(other, np.int32)), {"slots": slots}))
            for other in shapes.neighbors(sizes.slots, slots):
                programs.append((arrange, (state, np.zeros(rows, np.int32)), {"slots": other}))
        return programs

    def _placed(self, tree: Any) -> Any:
        return placed_shapes(self._generator, tree)
