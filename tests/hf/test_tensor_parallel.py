"""Heads spread over two processes: the same tokens as in one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import inf_llm
from inf_llm.errors import UnsupportedModelError

ROOT = Path(__file__).parent.parent.parent


def run(*command: str) -> dict[str, list[int]]:
    done = subprocess.run(
        [*command, "tests.hf.tensor_parallel_run", *PATHS], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


PATHS: list[str] = []


@pytest.mark.slow
def test_two_processes_say_what_one_says(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {"vocab_size": 96, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "eos_token_id": None}
    model = LlamaForCausalLM(LlamaConfig(**sizes, **heads))
    for name, weight in model.named_parameters():
        if "q_proj" in name or "k_proj" in name:
            weight.data *= 8
    model.save_pretrained(tmp_path)
    PATHS[:] = [str(tmp_path)]
    alone = run(sys.executable, "-m")
    torchrun = ("torch.distributed.run", "--nproc_per_node=2", "--master_port=29571", "-m")
    assert run(sys.executable, "-m", *torchrun) == alone
    assert len({str(tokens) for tokens in alone.values()}) == 5, "the kinds should differ"


def test_faiss_is_refused_where_scores_must_be_summed() -> None:
    pytest.importorskip("faiss", reason="needs the extra 'faiss'")
    sizes = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2)).eval()
    model._tp_size = 2
    with pytest.raises(UnsupportedModelError, match="leave index out, or set faiss to false"):
        inf_llm.patch(model, type="inf-llm", faiss=True)
