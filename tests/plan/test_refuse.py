"""What is known not to fit is refused, with both figures and what would fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from inf_llm.config import load_config
from inf_llm.errors import RoomError
from inf_llm.plan import refuse
from inf_llm.plan.refuse import require_room
from tests.hf.families import build
from tests.hf.zoo import WORKING


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(refuse, "device_free", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return monkeypatch


def test_weights_alone(host: pytest.MonkeyPatch) -> None:
    host.setattr(refuse, "host_free", lambda: 7_000_000)  # in bfloat16, its own format, 7.4 MB
    with pytest.raises(
        RoomError, match=r"demo does not fit: 7\.4 MB are needed on the host, which"
    ):
        require_room(load_config("demo-inf-llm"))
    host.setattr(refuse, "host_free", lambda: 8_000_000)
    require_room(load_config("demo-inf-llm"))
    with pytest.raises(RoomError, match=r"14\.8 MB"):
        require_room(load_config("demo-inf-llm", ["model.dtype=float32"]))


def test_a_text_that_is_to_be_read(host: pytest.MonkeyPatch) -> None:
    config = load_config("demo-inf-llm")
    host.setattr(refuse, "host_free", lambda: 10**9)
    require_room(config, 1 << 17, torch.float32)
    with pytest.raises(RoomError, match=r"256k tokens do not fit: .*1.8 GB.*max_len=\d+ trunc"):
        require_room(config, 1 << 18, torch.float32)
    require_room(config, 1 << 18, torch.bfloat16)


def test_nothing_is_refused_where_nothing_is_known(
    host: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    host.setattr(refuse, "host_free", lambda: None)
    require_room(load_config("demo-inf-llm"), 1 << 30)
    host.setattr(refuse, "host_free", lambda: 1)
    require_room(load_config("demo-inf-llm", ["model.device_map=auto"]))
    require_room(load_config("demo-inf-llm", model=str(tmp_path)))
    build(WORKING["llama-dynamic"]).save_pretrained(tmp_path)  # cannot be outlined
    require_room(load_config("demo-inf-llm", model=str(tmp_path)))
