# SPDX-License-Identifier: Apache-2.0
"""Prometheus's text format, checked with Prometheus's own parser."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from parma_shim.observe.exposition import Family, merge, render
from parma_shim.observe.registry import BUCKETS, Registry
from parma_wire.errors import Malformed


def parsed(text: str) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Sample name -> labels -> value."""
    result: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            result.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return result


@given(st.text(), st.text(), st.floats(allow_nan=False, allow_infinity=False))
def test_any_label_and_any_number_can_be_read_back(first: str, second: str, value: float) -> None:
    labels = (("a", first), ("b", second))
    samples = parsed(render([Family("x", "gauge", "Help.", {labels: value})]))
    ((found, number),) = samples["x"].items()
    assert number == value
    for (_, read), written in zip(found, (first, second), strict=True):
        assert read == "".join(c if c.isprintable() or c == "\n" else " " for c in written)


def test_a_histogram_counts_each_observation_in_every_bucket_above_it() -> None:
    registry = Registry()
    for seconds in (0.0005, 0.3, 1000.0):
        registry.observe("h_seconds", seconds, (("method", "Start"),))
    samples = parsed(
        render([Family("h_seconds", "histogram", "Help.", dict(registry.snapshot().histograms["h_seconds"]))])
    )
    buckets = {dict(labels)["le"]: number for labels, number in samples["h_seconds_bucket"].items()}
    assert buckets["0.001"] == 1
    assert buckets["0.25"] == 1
    assert buckets["0.5"] == 2
    assert buckets[f"{BUCKETS[-1]:g}"] == 2
    assert buckets["+Inf"] == 3
    assert samples["h_seconds_count"] == {(("method", "Start"),): 3}
    assert samples["h_seconds_sum"] == {(("method", "Start"),): pytest.approx(1000.3005)}


def test_families_without_values_are_left_out() -> None:
    assert render([Family("x_total", "counter", "Help.", {})]) == ""


def test_merging_keeps_every_sample_under_one_head() -> None:
    family = Family("x_total", "counter", "Help.", {(): 1})
    texts = [render([family], (("group", group),)) for group in ("one", "two")]
    merged = merge(texts)
    assert merged.count("# TYPE x_total counter") == 1
    assert parsed(merged) == {"x_total": {(("group", "one"),): 1, (("group", "two"),): 1}}


@pytest.mark.parametrize(
    "line", ["x 1", "# EOF", "x{a=b} 1", '# TYPE x gauge\ny{a="1"} 1', "\x1b[2J", '# TYPE x gauge\nx{a="1} 1']
)
def test_what_is_no_exposition_is_not_merged(line: str) -> None:
    with pytest.raises(Malformed):
        merge([line])
