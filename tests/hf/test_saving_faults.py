"""Saved memories with damaged, exchanged, edited or foreign files: refused, or harmless."""

from __future__ import annotations

import copy
import json
import random
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from inf_llm.errors import SavedMemoryError
from inf_llm.generation import Session
from inf_llm.saved.folder import verify
from inf_llm.saved.manifest import NAME
from tests.hf.tiny import character_tokenizer, feed, tiny_patched, tokens
from tests.saved.folders import contents
from tests.saved.test_manifest import STRANGE, changed, edited, places

Cause = str
"""A regular expression that the message of a refusal must have."""


class Bench:
    """A session in a folder, copies of which are damaged, and what it says next."""

    def __init__(self, folder: Path) -> None:
        self.model, self.tokenizer = tiny_patched(), character_tokenizer()
        self.whole, self.other, self.folder = (folder / name for name in ("a", "b", "c"))
        for path, seed in ((self.whole, 0), (self.other, 50)):
            session = self._saved(path, seed)
            if path == self.whole:
                self.ids, self.logits = session.ids, self.goes_on(session)
        self.files = contents(self.whole)
        self.segments = sorted(name for name in self.files if name.endswith(".safetensors"))
        self.factories = self.model, self.tokenizer
        self.chance = random.Random(0)

    def _saved(self, folder: Path, seed: int) -> Session:
        session = Session(self.model, self.tokenizer)
        for part in range(2):
            session.read(tokens(72, seed=seed + part)[0].tolist())
            session.save(folder)
        return session

    def goes_on(self, session: Session) -> list[torch.Tensor]:
        """Logits of what follows, in steps of one token and of several."""
        parts = (tokens(count, seed=90 + count) for count in (1, 20, 1, 33, 2))
        return [feed(self.model, part, session.cache) for part in parts]

    def fresh(self) -> None:
        """Folder, model and tokenizer as they were saved."""
        self.model, self.tokenizer = map(copy.deepcopy, self.factories)
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.whole, self.folder)

    def change(self, name: str, content: bytes) -> Cause:
        """Write a file; the names of what must be in the message."""
        (self.folder / name).write_bytes(content)
        return re.escape(name)

    def outcome(self, cause: Cause) -> str:
        """How opening the folder, and going on, ends."""
        try:
            session = Session.load(self.folder, self.model, self.tokenizer)
            logits = self.goes_on(session)
        except SavedMemoryError as error:
            return "refused" if re.search(cause, str(error)) else f"{cause} not in {error}"
        assert session.ids[: len(self.ids)] == self.ids
        assert all(map(torch.equal, logits, self.logits))
        now = contents(self.folder)
        damaged = [name for name in self.segments if now.get(name) != self.files[name]]
        found = verify(self.folder) if damaged else []
        assert all(any(name in line for line in found) for name in damaged), damaged
        return "not touched" if damaged else "harmless"


def _flipped(content: bytes, at: int, bit: int) -> bytes:
    flipped = bytearray(content)
    flipped[at] ^= 1 << bit
    return bytes(flipped)


def any_bit(bench: Bench) -> Cause:
    name = bench.chance.choice([*bench.segments, NAME])
    content = bench.files[name]
    at, bit = bench.chance.randrange(len(content)), bench.chance.randrange(8)
    return bench.change(name, _flipped(content, at, bit))


def bit_of_a_header(bench: Bench) -> Cause:
    name = bench.chance.choice([name for name in bench.segments if name.startswith("blocks")])
    content = bench.files[name]
    at = bench.chance.randrange(8 + int.from_bytes(content[:8], "little"))
    return bench.change(name, _flipped(content, at, bench.chance.randrange(8))) + "|in its files"


def truncated(bench: Bench) -> Cause:
    name = bench.chance.choice([*bench.segments, NAME])
    length = bench.chance.randrange(len(bench.files[name]))
    return bench.change(name, bench.files[name][:length])


def longer(bench: Bench) -> Cause:
    name = bench.chance.choice([*bench.segments, NAME, "lock"])
    more = bench.chance.randbytes(bench.chance.randrange(1, 99))
    return bench.change(name, bench.files[name] + more)


def missing(bench: Bench) -> Cause:
    name = bench.chance.choice([*bench.segments, NAME, "lock"])
    (bench.folder / name).unlink()
    return re.escape(name)


def exchanged(bench: Bench) -> Cause:
    one = bench.chance.choice(bench.segments)
    other = bench.chance.choice([name for name in bench.segments if name != one])
    return bench.change(one, bench.files[other]) + "|" + bench.change(other, bench.files[one])


def of_another_memory(bench: Bench) -> Cause:
    name = bench.chance.choice([*bench.segments, NAME])
    cause = bench.change(name, (bench.other / name).read_bytes())
    return ".*" if name == NAME else cause


def edited_by_hand(bench: Bench, recomputed: bool = False) -> Cause:
    data = json.loads(bench.files[NAME])
    path = bench.chance.choice([path for path in places(data) if path != ("checksum",)])
    value = bench.chance.choice([*STRANGE, "float16", "1", 2, 7])
    edited(bench.folder, changed(data, path, value), recomputed)
    return r"manifest\.json|/c |safetensors"


def edited_with_its_checksum(bench: Bench) -> Cause:
    return edited_by_hand(bench, recomputed=True)


def another_model(bench: Bench) -> Cause:
    bench.model = tiny_patched(seed=bench.chance.randrange(1, 1000))
    return "weights is"


def trained_further(bench: Bench) -> Cause:
    weight = bench.chance.choice(list(bench.model.parameters()))
    weight.data += 1e-3 * torch.randn(weight.shape)
    return "weights is"


def another_tokenizer(bench: Bench) -> Cause:
    if bench.chance.random() < 0.5:
        bench.tokenizer.add_tokens([f"<{bench.chance.random()}>"])
    else:
        bench.tokenizer.chat_template = f"{{{{ messages }}}}{bench.chance.random()}"
    return r"(tokenizer|chat_template) is"


def another_rope(bench: Bench) -> Cause:
    bench.model.config.rope_parameters["rope_theta"] = float(bench.chance.randrange(1, 9999))
    return r"config\.rope_parameters\.rope_theta is .* there"


Mutation = Callable[[Bench], Cause]
COUNTS: dict[Mutation, int] = {
    any_bit: 80,
    bit_of_a_header: 40,
    truncated: 30,
    longer: 10,
    missing: 10,
    exchanged: 20,
    of_another_memory: 20,
    edited_by_hand: 20,
    edited_with_its_checksum: 40,
}
OTHERS: dict[Mutation, int] = {
    another_model: 5,
    trained_further: 10,
    another_tokenizer: 10,
    another_rope: 5,
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"))


def test_there_are_three_hundred() -> None:
    assert sum(COUNTS.values()) + sum(OTHERS.values()) == 300


def test_control_a_folder_as_it_was_saved(bench: Bench) -> None:
    bench.fresh()
    assert bench.outcome("never") == "harmless"


def test_control_other_logits_are_seen(bench: Bench) -> None:
    bench.fresh()
    session = Session.load(bench.folder, bench.model, bench.tokenizer)
    feed(bench.model, tokens(1), session.cache)
    assert not all(map(torch.equal, bench.goes_on(session), bench.logits))


@pytest.mark.parametrize("mutate", COUNTS, ids=lambda each: each.__name__)
def test_a_changed_folder_is_refused_or_harmless(bench: Bench, mutate: Mutation) -> None:
    outcomes: Counter[str] = Counter()
    for _ in range(COUNTS[mutate]):
        bench.fresh()
        outcomes[bench.outcome(mutate(bench))] += 1
    assert set(outcomes) <= {"refused", "not touched", "harmless"}, outcomes
    assert outcomes["refused"] >= COUNTS[mutate] / 2, outcomes
    print(mutate.__name__, outcomes)


@pytest.mark.parametrize("mutate", OTHERS, ids=lambda each: each.__name__)
def test_another_model_or_tokenizer_is_refused(tmp_path: Path, mutate: Mutation) -> None:
    bench = Bench(tmp_path)
    for _ in range(OTHERS[mutate]):
        bench.fresh()
        assert bench.outcome(mutate(bench)) == "refused"
