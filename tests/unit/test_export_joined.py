"""The cut between encoder and decoder as an ONNX graph: the host's rule for K, whatever the pictures ask for."""

import numpy as np
import onnxruntime as ort
import pytest

from export.joined import CUT_INPUTS, cut_graph
from export.runtime import query_counts
from model.config import DetectorConfig, QueryConfig

FEW, MANY = 21, 60


@pytest.mark.parametrize("query", [QueryConfig(k_min=10, k_max=50, t=3.0), QueryConfig(k_min=30, k_max=30)])
@pytest.mark.parametrize("proposals", [FEW, MANY])
def test_as_many_rows_are_kept_as_the_host_would_keep(query: QueryConfig, proposals: int, session_of) -> None:
    for asked in ([0.0], [7.5, 2.0], [1e6, 0.0], [3.4, 3.6, 4.5]):
        count = np.array(asked, np.float32)
        queries = np.random.default_rng(0).normal(size=(len(asked), proposals, 8)).astype(np.float32)
        feed = dict(zip(CUT_INPUTS, (queries, queries[:, :, :4], count), strict=True))
        kept, boxes, valid = session_of(query).run(None, feed)
        counts = query_counts(count, query, proposals)
        most = counts.max()
        np.testing.assert_array_equal(kept, queries[:, :most])
        np.testing.assert_array_equal(boxes, queries[:, :most, :4])
        np.testing.assert_array_equal(valid, np.arange(most)[None] < counts[:, None])


@pytest.fixture(scope="module")
def session_of():
    """A session of the cut with these limits, traced once."""
    made: dict[QueryConfig, ort.InferenceSession] = {}

    def session(query: QueryConfig) -> ort.InferenceSession:
        if query not in made:
            graph = cut_graph(DetectorConfig(classes=("ship",), width=8, query=query))
            made[query] = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
        return made[query]

    return session
