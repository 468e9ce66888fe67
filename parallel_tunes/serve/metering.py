"""What a service counts: for Prometheus while it runs, and for its report when it ends; both stay small however long."""

from __future__ import annotations

import math
from collections import Counter as Tally
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

STEP = 1.02  # of a latency to the next that is told apart from it
FASTEST_S, SLOWEST_S = 1e-4, 1e4
QUANTILES = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99}


class Latencies:
    """Seconds, of which quantiles are known to 2 %: a histogram of logarithmic bins."""

    def __init__(self) -> None:
        self._counts = np.zeros(1 + math.ceil(math.log(SLOWEST_S / FASTEST_S, STEP)), np.int64)

    def add(self, seconds: float) -> None:
        """One more."""
        bin_ = math.log(max(seconds, FASTEST_S) / FASTEST_S, STEP)
        self._counts[min(int(bin_), len(self._counts) - 1)] += 1

    def quantile(self, share: float) -> float | None:
        """Seconds that this share of them does not exceed; None where there are none."""
        num = int(self._counts.sum())
        if not num:
            return None
        at = int(np.searchsorted(np.cumsum(self._counts), max(math.ceil(share * num), 1)))
        return float(FASTEST_S * STEP ** (at + 0.5))


class Meter:
    """Counts of one service, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        mine: dict[str, Any] = {"registry": self.registry}
        labels = ["endpoint", "status"]
        self._requests = Counter("ptunes_requests", "Requests that were answered", labels, **mine)
        self._seconds = Histogram("ptunes_request_seconds", "From a request's head to its answer", labels[:1], **mine)
        sizes = [2**power for power in range(13)]
        self._batches = Histogram("ptunes_batch_windows", "Windows in a forward pass", buckets=sizes, **mine)
        self._deaths = Counter("ptunes_decoder_ends", "Decoding processes that had to be replaced", ["cause"], **mine)
        self._predictions = Counter("ptunes_stream_predictions", "Answers within streams", **mine)
        self.in_flight = Gauge("ptunes_requests_in_flight", "Requests at work or waiting", **mine)
        self.streams = Gauge("ptunes_streams", "Streams that are open", **mine)
        self.waiting = Gauge("ptunes_windows_waiting", "Windows that wait for the model", **mine)
        self._statuses: Tally[tuple[str, int]] = Tally()
        self._latencies: dict[str, Latencies] = {}
        self._sums: Tally[str] = Tally()

    def answered(self, endpoint: str, status: int, seconds: float) -> None:
        """A request has its answer; status 0 where who asked has gone."""
        self._requests.labels(endpoint, str(status)).inc()
        if status != 101:  # a stream lasts as long as its client likes
            self._seconds.labels(endpoint).observe(seconds)
        self._statuses[endpoint, status] += 1
        if status == 200:
            self._latencies.setdefault(endpoint, Latencies()).add(seconds)

    def batched(self, num_windows: int) -> None:
        """Windows have gone through the model together."""
        self._batches.observe(num_windows)
        self._sums.update(batches=1, windows=num_windows)

    def replaced(self, cause: str) -> None:
        """A decoding process has died, or was ended."""
        self._deaths.labels(cause).inc()
        self._sums.update(decoders_replaced=1)

    def predicted(self) -> None:
        """A stream has an answer."""
        self._predictions.inc()
        self._sums.update(stream_predictions=1)

    def usual_s(self, endpoint: str) -> float:
        """How long an answer of this endpoint takes, in the middle; seconds."""
        return self._latencies.get(endpoint, Latencies()).quantile(0.5) or 0.0

    def expose(self) -> bytes:
        """All counts, as Prometheus reads them."""
        return generate_latest(self.registry)

    def summarise(self) -> dict[str, Any]:
        """The counts for a report: of each endpoint, answers by status, and latencies of the good ones, ms."""
        endpoints: dict[str, Any] = {}
        for (endpoint, status), num in sorted(self._statuses.items()):
            endpoints.setdefault(endpoint, {"statuses": {}})["statuses"][str(status)] = num
        for endpoint, latencies in self._latencies.items():
            found = {name: latencies.quantile(share) for name, share in QUANTILES.items()}
            endpoints[endpoint] |= {name: round(1000 * value, 3) for name, value in found.items() if value is not None}
        names = ("batches", "windows", "stream_predictions", "decoders_replaced")
        return {
            "num_requests": sum(self._statuses.values()),
            **{f"num_{name}": self._sums[name] for name in names},
            "endpoints": endpoints,
        }
