"""What /metrics shows, in the text format of Prometheus: the engine's figures, and those of the HTTP requests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE

from gptjax.inference import engine_metrics
from gptjax.serving.models import Served

__all__ = ["CONTENT_TYPE", "Counts"]

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
GAUGES = {
    "num_slots": ("slots", "Texts that are generated at the same time."),
    "slots_in_use": ("slots_in_use", "Slots that generate a text now."),
    "requests_running": ("requests_running", "Requests that are read or written now."),
    "requests_waiting": ("requests_waiting", "Requests that wait for a slot."),
    "tokens_per_second": ("generated_tokens_per_second", "Tokens generated per second, in the last 10 seconds."),
}
COUNTERS = {
    "requests_refused": ("requests_refused", "Requests that found the queue full."),
    "prompt_tokens": ("prompt_tokens", "Tokens of prompts."),
    "cached_tokens": ("cached_prompt_tokens", "Tokens of prompts that had been read for an earlier request."),
    "generated_tokens": ("generated_tokens", "Tokens generated."),
    "steps": ("decoding_steps", "Steps of the model, one after another, each with a token or more for every text."),
    "proposed_tokens": ("proposed_tokens", "Tokens that were proposed (--num_speculative_tokens)."),
    "accepted_tokens": ("accepted_tokens", "Proposed tokens with which the text went on."),
}
HISTOGRAMS = {
    "queue_seconds": ("queue_seconds", "Seconds in the queue."),
    "time_to_first_token_seconds": ("time_to_first_token_seconds", "Seconds from a request to its first token."),
    "seconds_per_token": ("time_per_output_token_seconds", "Seconds per further token of a request."),
    "request_seconds": ("request_seconds", "Seconds from a request to the end of its texts, in the engine."),
}


class Counts:
    """Counts HTTP requests, and writes the page of all figures."""

    def __init__(self, served: Served):
        self.registry = CollectorRegistry()
        self.registry.register(_EngineFigures(served))  # type: ignore[arg-type]  # any object with `collect`
        ProcessCollector(registry=self.registry)
        of_server: dict[str, Any] = dict(namespace="gptjax", registry=self.registry)
        self.answered = Counter("http_requests", "HTTP requests, by answer.", ("path", "status"), **of_server)
        self.seconds = Histogram("http_request_seconds", "Seconds to answer.", ("path",), buckets=SECONDS, **of_server)
        self.open = Gauge("http_requests_open", "HTTP requests that are being answered.", **of_server)

    def page(self) -> bytes:
        return generate_latest(self.registry)


class _EngineFigures:
    """Reads the engine's figures whenever the page is written."""

    def __init__(self, served: Served):
        self._served = served

    def collect(self) -> Iterator[Any]:
        metrics = self._served.engine.metrics
        info = GaugeMetricFamily("gptjax_model_info", "What is served.", labels=("model", "parameters"))
        info.add_metric([self._served.name, self._served.fingerprint], 1)
        yield info
        yield GaugeMetricFamily("gptjax_up", "Whether the engine works.", float(metrics.is_up))
        for field, (name, text) in GAUGES.items():
            yield GaugeMetricFamily(f"gptjax_{name}", text, getattr(metrics, field))
        for field, (name, text) in COUNTERS.items():
            yield CounterMetricFamily(f"gptjax_{name}", text, getattr(metrics, field))
        finished = CounterMetricFamily("gptjax_requests_finished", "Requests that have ended.", labels=("reason",))
        for reason, count in metrics.requests_finished.items():
            finished.add_metric([reason], count)
        yield finished
        for field, (name, text) in HISTOGRAMS.items():
            yield _histogram(f"gptjax_{name}", text, getattr(metrics, field))


def _histogram(name: str, text: str, values: engine_metrics.Histogram) -> HistogramMetricFamily:
    """The same counts, each with those of all smaller values, as Prometheus wants them."""
    buckets, so_far = [], 0
    for bound, count in zip((*values.bounds, float("inf")), list(values.counts)):
        so_far += count
        buckets.append(("+Inf" if bound == float("inf") else str(bound), float(so_far)))
    return HistogramMetricFamily(name, text, buckets=buckets, sum_value=values.total)
