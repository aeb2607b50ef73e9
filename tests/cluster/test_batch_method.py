"""A shard is the batch of a recipe that scores pictures beside each other: too small a one is refused."""

from __future__ import annotations

import pytest

from winspect.cluster.run import check_shards
from winspect.errors import SettingsError
from winspect.methods.registry import get_method


@pytest.mark.parametrize(
    ("inputs", "shard_rows", "smallest"), [(3, 256, 3), (9, 6, 3), (513, 256, 1), (20, 2, 2)], ids=str
)
def test_small_shards_are_refused_with_their_size(inputs, shard_rows, smallest):
    with pytest.raises(SettingsError, match=f"has {smallest}, and is scored as one batch: .* need at least 4"):
        check_shards(get_method("mutual"), inputs, shard_rows)
    check_shards(get_method("paper"), inputs, shard_rows)


@pytest.mark.parametrize(("inputs", "shard_rows"), [(4, 256), (12, 6), (10, 6), (512, 256)], ids=str)
def test_shards_of_four_and_more_are_scored(inputs, shard_rows):
    check_shards(get_method("mutual"), inputs, shard_rows)
