"""The training script of the embedded model, and the model it made."""

from __future__ import annotations

import gzip
import lzma
import random
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import train_demo_model  # noqa: E402
from demo_model import (  # noqa: E402
    card,
    geometry,
    measure,
    needles,
    network,
    samples,
    text,
    training,
)

ASSETS = ROOT / "inf_llm" / "assets" / "demo"
PROSE = "It was a bright cold day in the month of April, and the clocks were striking. "
TINY = network.Shape(vocab=300, width=128, layers=2, heads=2, kv_heads=1, mlp=128, context=64)


@pytest.fixture(scope="module")
def tokenizer():
    return text.train_tokenizer(PROSE * 20, 300)


@pytest.fixture(scope="module")
def sampler(tokenizer):
    ids = text.encode_all(tokenizer, PROSE * 200)
    return samples.Sampler(tokenizer, ids, ["april", "clocks", "striking", "bright"], seed=3)


def _model():
    return network.build(TINY, seed=0).eval()


def _rotary():
    return geometry.Rotary(TINY.head_dim, 64, torch.device("cpu"))


@pytest.mark.parametrize(
    "written", ["Zoë said: 漢字\t\n  x", "\x00\x01 🎉 1234567890", "", " a  b "]
)
def test_tokenizer_is_lossless(tokenizer, written):
    assert tokenizer.decode(tokenizer.encode(written).ids) == written


def test_every_digit_is_a_token(tokenizer):
    tokens = tokenizer.encode("x48213", add_special_tokens=False).tokens
    assert tokens[-5:] == list("48213")


def test_chat_template_marks_turns(tokenizer):
    fast = text.as_transformers(tokenizer)
    turns = [{"role": "user", "content": "Hello"}]
    made = fast.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert made == "<s><|user|>\nHello<|end|>\n<|assistant|>\n"


def test_text_is_read_from_all_known_kinds(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "b.xz").write_bytes(lzma.compress(b"two"))
    (tmp_path / "c.gz").write_bytes(gzip.compress(b"three"))
    assert text.read_text(tmp_path) == "one\n\ntwo\n\nthree"


def test_held_out_text_is_split_without_loss():
    lines = "".join(f"line {i}\n" for i in range(1000))
    piece, rest = text.split_held_out(lines, 2000)
    assert len(piece) + len(rest) == len(lines)
    assert piece.startswith("line ")
    assert piece not in rest


@pytest.mark.parametrize("name", sorted(needles.FAMILIES))
def test_the_answer_of_a_needle_is_in_its_statement(name):
    family, _ = needles.FAMILIES[name]
    for seed in range(50):
        needle = family(random.Random(seed), ["april", "clock", "day"])
        assert needle.answer.strip(' ."') in needle.statement


def test_batches_depend_on_seed_and_step_only(sampler):
    mix = samples.Mix(0.3, 0.3)
    one, two, other = (sampler.batch(step, 8, 64, mix) for step in (7, 7, 8))
    assert torch.equal(one.ids, two.ids)
    assert not torch.equal(one.ids, other.ids)


def test_rows_have_one_length_and_answers_that_stand_in_the_text(sampler, tokenizer):
    batch = sampler.batch(0, 16, 256, samples.Mix(0.0, 0.0))
    assert batch.ids.shape == (16, 257)
    for ids, asks in zip(batch.ids, batch.asks, strict=True):
        digits = [tokenizer.id_to_token(i) for i in ids[1:][asks].tolist()]
        found = "".join(token for token in digits if token.isdigit())
        document = tokenizer.decode(ids[:-1][~asks].tolist())
        assert asks.any()
        assert found[:2] in document


def test_hard_rows_fill_the_text_with_facts(sampler):
    batch = sampler.batch(1, 32, 256, samples.Mix(0.0, 0.0, hard=1.0))
    facts = (batch.kind == samples.SHARED_FACT).float().mean(1)
    assert (facts > 0.3).any()
    assert (batch.kind == samples.OWN_FACT).any()


def test_first_layer_looks_back():
    model = _model()
    model.set_attn_implementation("eager")
    ids = torch.randint(7, 300, (1, 40))
    shares = model(ids, output_attentions=True).attentions[0][0]  # (H, T, T)
    for head, back in ((0, 1), (1, 2)):
        assert shares[head, 30].argmax() == 30 - back


def test_a_grown_model_is_the_same_but_for_a_layer_that_looks_farther_back():
    model = _model()
    grown = network.grow(model, seed=0).eval()
    ids = torch.randint(7, 300, (2, 40))
    assert grown.config.num_hidden_layers == model.config.num_hidden_layers + 1
    grown.set_attn_implementation("eager")
    shares = grown(ids, output_attentions=True).attentions[1][0]  # (H, T, T)
    for head, back in ((0, 3), (1, 6)):
        assert shares[head, 30].argmax() == 30 - back

    torch.nn.init.zeros_(grown.model.layers[1].self_attn.o_proj.weight)
    torch.testing.assert_close(grown(ids).logits, model(ids).logits, atol=1e-5, rtol=1e-5)


def test_copies_of_a_few_symbols(sampler, tokenizer):
    batch = sampler.batch(2, 8, 200, samples.Mix(0.0, 1.0, alike=1.0))
    for ids in batch.ids:
        assert 2 <= len(set(ids[1:].tolist())) <= 16
        assert set(tokenizer.decode(ids[1:].tolist())) <= set("0123456789abcdef")


def test_plain_forward_is_the_models_own():
    model, ids = _model(), torch.randint(7, 300, (2, 50))
    ours = geometry.forward(model, _rotary(), ids, None)
    torch.testing.assert_close(ours, model(ids).logits, atol=1e-4, rtol=1e-4)


def _view(rows: int, length: int, window: int, crowd: torch.Tensor | None) -> geometry.View:
    everything = torch.ones(rows, length, dtype=torch.bool)
    return geometry.View(torch.tensor(window), everything, everything, ~everything, crowd, 8, rows)


def test_a_window_as_long_as_the_row_changes_nothing():
    model, ids = _model(), torch.randint(7, 300, (2, 50))
    ours = geometry.forward(model, _rotary(), ids, _view(2, 50, 64, None))
    torch.testing.assert_close(ours, model(ids).logits, atol=1e-4, rtol=1e-4)


def test_far_tokens_have_no_order():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 2, 40, 64).unbind(0)
    order = torch.cat((torch.randperm(20), torch.arange(20, 40)))
    view = _view(1, 40, 16, None)
    seen = geometry.through(view, _rotary(), q, k, v)
    shuffled = geometry.through(view, _rotary(), q, k[:, :, order], v[:, :, order])
    torch.testing.assert_close(seen[:, :, 36:], shuffled[:, :, 36:])


def test_a_crowd_of_none_is_seen_by_none():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 3, 2, 40, 64).unbind(0)
    alone = geometry.through(_view(3, 40, 16, None), _rotary(), q, k, v)
    nobody = torch.zeros(3, 40, dtype=torch.bool)
    among = geometry.through(_view(3, 40, 16, nobody), _rotary(), q, k, v)
    torch.testing.assert_close(alone, among)


def test_the_end_of_a_row_sees_other_rows():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 3, 2, 40, 64).unbind(0)
    alone = geometry.through(_view(3, 40, 16, None), _rotary(), q, k, v)
    crowd = torch.ones(3, 40, dtype=torch.bool)
    among = geometry.through(_view(3, 40, 16, crowd), _rotary(), q, k, v)
    torch.testing.assert_close(alone[:, :, :32], among[:, :, :32])
    assert not torch.allclose(alone[:, :, 32:], among[:, :, 32:])


def test_answering_tokens_always_see_facts():
    kind = torch.tensor([[samples.PROSE] * 8 + [samples.OWN_FACT] * 8 + [samples.TAIL] * 8])
    asks = torch.zeros(1, 24, dtype=torch.bool)
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        view = geometry.draw_view(kind, asks, 8, True, generator)
        assert view.answering[0, 8:16].all()
        assert view.crowd is not None
        assert not view.crowd[0, 8:].any()


def _trainer(sampler, folder: Path, compiled: bool = False) -> training.Trainer:
    mix = samples.Mix(0.3, 0.2)
    phases = [training.Phase(3, 4, 48, mix), training.Phase(3, 4, 64, mix, 1.0, 1.0, windows=(16,))]
    options = training.Options(save_every=2, log_every=2, compile=compiled)
    return training.Trainer(network.build(TINY, 0), sampler, phases, options, folder)


def test_a_stopped_run_goes_on_as_if_nothing_had_happened(sampler, tmp_path):
    whole_folder, parts_folder = tmp_path / "whole", tmp_path / "parts"
    whole_folder.mkdir()
    parts_folder.mkdir()
    whole = _trainer(sampler, whole_folder)
    whole.run()
    stopped = _trainer(sampler, parts_folder)
    phase = stopped.phases[0]
    for _ in range(2):
        stopped._advance(phase)  # saves at step 2; the next step is lost
    stopped._advance(phase)
    again = _trainer(sampler, parts_folder)
    assert again.resume()
    assert again.step == 2
    again.run()
    for ours, theirs in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert [row["step"] for row in again.log] == [row["step"] for row in whole.log]


def test_rate_rises_stays_and_falls():
    factors = [training.rate_factor(step, 1000, 100, 0.25) for step in range(1000)]
    assert factors[0] < factors[50] < factors[99] == factors[700] == 1.0
    assert factors[-1] < 0.05


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--text", "nowhere"], "no such file or folder: nowhere"),
        (["--text", "{empty}"], "expected text files ending in"),
        (["--text", "{short}"], "are needed"),
        (["--text", "{damaged}"], "cannot read"),
        (["--text", "{short}", "--width", "100"], "not a multiple of 64"),
        (["--text", "{short}", "--layers", "1"], "looking things up takes two"),
        (["--text", "{short}", "--tokens", "0"], "at least 1 is needed"),
        (["--text", "{short}", "--tokens", "many"], "many"),
        (
            ["--text", "{short}", "--grow", "{empty}"],
            "not the folder of a finished model",
        ),
        (["--text", "{short}", "--grow", "{model}"], "has 5 layers of width 256: with --layers 4"),
        (
            ["--text", "{short}", "--grow", "{model}", "--layers", "6", "--width", "64"],
            "of width 256",
        ),
        ([], "--text"),
    ],
)
def test_wrong_arguments_are_one_message_and_status_2(tmp_path, capsys, arguments, message):
    files = {"empty": tmp_path / "empty", "short": tmp_path / "a.txt", "damaged": tmp_path / "b.xz"}
    files["model"] = ASSETS
    files["empty"].mkdir()
    files["short"].write_text(PROSE)
    files["damaged"].write_bytes(b"not xz")
    given = [argument.format(**files) for argument in arguments]
    with pytest.raises(SystemExit) as stop:
        train_demo_model.main([*given, "--out", str(tmp_path / "out")])
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert message in error
    assert "Traceback" not in error


@pytest.fixture(scope="module")
def shipped():
    model = AutoModelForCausalLM.from_pretrained(ASSETS, dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(ASSETS)


def test_the_shipped_model_is_small_and_plain(shipped):
    model, tokenizer = shipped
    assert type(model).__name__ == "LlamaForCausalLM"
    assert (ASSETS / "model.safetensors").stat().st_size < 12_000_000
    assert model.config.max_position_embeddings == 512
    assert len(tokenizer) == model.config.vocab_size
    assert {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id} == {0, 1, 2}


def test_the_shipped_haystack_is_prose():
    haystack = lzma.decompress((ASSETS / "haystack.txt.xz").read_bytes()).decode()
    assert 900_000 < len(haystack) < 1_100_000
    assert haystack.count(". ") > 5_000


@pytest.mark.parametrize("family", ["passkey", "niah_single_2"])
def test_the_shipped_model_finds_needles_within_its_context(shipped, family):
    haystack = lzma.decompress((ASSETS / "haystack.txt.xz").read_bytes()).decode()
    assert measure.retrieval(*shipped, haystack, (family,), count=5)[family] >= 0.8


def test_the_shipped_model_answers_in_a_chat(shipped):
    haystack = lzma.decompress((ASSETS / "haystack.txt.xz").read_bytes()).decode()
    assert measure.chat_passkey(*shipped, haystack, count=5) >= 0.8


def test_later_prose_is_easier_and_baselines_are_worse(shipped):
    model, tokenizer = shipped
    haystack = lzma.decompress((ASSETS / "haystack.txt.xz").read_bytes()).decode()
    ids = text.encode_all(tokenizer.backend_tokenizer, haystack[:300_000])
    losses = [bucket.loss for bucket in measure.loss_by_position(model, ids, rows=48)]
    simple = measure.baselines(ids[: len(ids) // 2], ids[len(ids) // 2 :], len(tokenizer))
    assert losses[-1] < losses[0]
    assert losses[-1] < simple["bigram"] < simple["unigram"]


def test_the_card_has_every_figure():
    figures = card.Figures(
        positions=[measure.PositionLoss(0, 15, 3.5)],
        baselines={"unigram": 5.5, "bigram": 4.5},
        found={"passkey": 0.985},
        rows=12,
        count=200,
    )
    run = {
        "parameters": 3.0,
        "tokens": 1000,
        "steps": 10,
        "minutes": 1.0,
        "device": "2 CPU cores",
        "seed": 0,
        "megabytes": 6.0,
        "text_tokens": 5,
        "command": "python x",
    }
    made = card.render(TINY, run, figures)
    for part in ("| 0 to 15 | 3.500 |", "5.50", "4.50", "| passkey | 0.985 |", "python x"):
        assert part in made
