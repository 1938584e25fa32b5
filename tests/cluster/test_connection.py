"""Where a cluster is said to be."""

from __future__ import annotations

import time

import pytest

from inf_llm.cluster.connection import check_address
from inf_llm.errors import SettingsError


@pytest.mark.parametrize("address", ["127.0.0.1:9", "no.such.host.invalid:6379", "127.0.0.1:99999"])
def test_where_no_cluster_is_none_is_waited_for(address: str) -> None:
    begun = time.monotonic()
    with pytest.raises(SettingsError, match=f"--address {address}: no cluster answers there"):
        check_address(address)
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize("address", ["auto", "local"])
def test_addresses_that_ray_knows_are_left_to_it(address: str) -> None:
    check_address(address)


def test_rays_client_is_refused() -> None:
    with pytest.raises(SettingsError, match="start this on a machine of the cluster"):
        check_address("ray://host:10001")
