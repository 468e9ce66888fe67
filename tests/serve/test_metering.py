from __future__ import annotations

import pytest

from parallel_tunes.serve.metering import Latencies, Meter


def test_latencies_are_known_to_two_per_cent() -> None:
    latencies = Latencies()
    assert latencies.quantile(0.5) is None
    for milliseconds in range(1, 1001):
        latencies.add(milliseconds / 1000)
    for share in (0.01, 0.5, 0.95, 0.99, 1.0):
        assert latencies.quantile(share) == pytest.approx(share, rel=0.02)
    for extreme in (0.0, 1e9):
        latencies.add(extreme)


def test_a_meter_counts_for_prometheus_and_for_the_report() -> None:
    meter = Meter()
    for status in (200, 200, 429, 101):
        meter.answered("/v1/genre", status, 0.1)
    meter.batched(3)
    meter.batched(5)
    meter.replaced("death")
    text = meter.expose().decode()
    assert 'ptunes_requests_total{endpoint="/v1/genre",status="200"} 2.0' in text
    assert 'ptunes_decoder_ends_total{cause="death"} 1.0' in text
    found = meter.summarise()
    assert found["num_requests"] == 4
    assert (found["num_batches"], found["num_windows"], found["num_decoders_replaced"]) == (2, 8, 1)
    assert found["endpoints"]["/v1/genre"]["statuses"] == {"101": 1, "200": 2, "429": 1}
    assert found["endpoints"]["/v1/genre"]["p50_ms"] == pytest.approx(100, rel=0.02)
