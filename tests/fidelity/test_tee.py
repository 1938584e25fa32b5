"""One read for several memories: the output is the first one's, the others are filled alike."""

from __future__ import annotations

import torch

import inf_llm
from inf_llm.fidelity.readers import FULL, WINDOW, CacheFactory
from inf_llm.fidelity.tee import Probe, of_one, recall, tees
from inf_llm.hf.cache import MemoryCache
from tests.tiny import tiny_model

TEXT = torch.randint(3, 200, (1, 700), generator=torch.Generator().manual_seed(1))
READ = 672
NAMES = [FULL, WINDOW, "few", "all", "oracle"]


@torch.no_grad()
def _read(caches: CacheFactory, cache: MemoryCache, text: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = caches.model(text, past_key_values=cache, use_cache=True).logits
    return logits


def test_the_output_is_that_of_the_model_itself(caches: CacheFactory) -> None:
    with torch.no_grad():
        logits = tiny_model()(TEXT).logits
    joint = _read(caches, caches.joint_cache(NAMES), TEXT)
    torch.testing.assert_close(joint, logits, rtol=0, atol=5e-3)
    alone = _read(caches, caches.cache("few"), TEXT)
    assert (alone - logits).abs().max() > 0.1, "a rule reads otherwise"


def test_every_memory_is_filled_and_answers_for_itself(caches: CacheFactory) -> None:
    """In the first layer, where all rules see the same, it holds what it holds when it reads."""
    joint = caches.joint_cache(NAMES)
    _read(caches, joint, TEXT[:, :READ])
    answers = {}
    for name in NAMES:
        one = of_one(joint, name)
        first = tees(one)[0]
        assert list(first.members) == [name]
        assert first.members[name].seen == READ
        answers[name] = _read(caches, one, TEXT[:, READ:])
    full = answers[FULL]
    assert (answers["few"] - full).abs().max() > 1e-2
    assert (answers[WINDOW] - answers["few"]).abs().max() > 1e-2
    again = _read(caches, of_one(joint, "few"), TEXT[:, READ:])
    assert torch.equal(again, answers["few"]), "the joint cache is as it was"


def test_a_memory_of_everything_holds_all_mass_and_one_of_nothing_little(
    caches: CacheFactory,
) -> None:
    joint = caches.joint_cache([FULL, "few", "all"])
    _read(caches, joint, TEXT[:, :READ])
    for tee in tees(joint):
        tee.probe = Probe(READ, (100, 120))
    _read(caches, joint, TEXT[:, READ:])
    found = recall(joint)
    far, held, best, needle, needle_held, _ = found["all"].T
    assert torch.equal(held, far)
    assert torch.equal(best, far)
    assert torch.equal(needle_held, needle)
    assert (needle > 0).all()
    assert (needle < far).all()
    far, held, best, *_ = found["few"].T
    assert (held < 0.8 * far).all()
    assert (held <= best + 1e-9).all()
    assert (best < 0.95 * far).all()


def test_caches_read_as_patch_does(caches: CacheFactory) -> None:
    """The control of all that is measured with `--read own`."""
    got = _read(caches, caches.cache("few"), TEXT)
    model = inf_llm.patch(tiny_model(), caches.readers["few"].settings)
    with torch.no_grad():
        wanted = model(TEXT, use_cache=True).logits
    assert torch.equal(got, wanted)
