"""A study that is killed wherever it stands goes on and is whole."""

import pytest
from smoke_study import end_after, finish, is_whole, records


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_study_that_was_killed_at_five_stages_is_whole(tmp_path):
    for line in (
        "videos:",  # while it makes the data set
        "loss ",  # in the middle of training
        "eval.caption quant=none",
        "eval.retrieval quant=int8",
        "device_bench.latency quant=none",
    ):
        end_after(tmp_path, line)
    assert "tables in" in finish(tmp_path)
    assert is_whole(records(tmp_path))
