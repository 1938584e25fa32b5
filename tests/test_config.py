"""A configuration is read as written, or refused in one line that names place, key and rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from inf_llm.choice import Choice
from inf_llm.config import ANY_MODEL, SHIPPED_CONFIGS, RunConfig, load_config, suited
from inf_llm.errors import ConfigError
from inf_llm.settings import InfLLMSettings
from inf_llm.variants import ATTENTION

SHIPPED = sorted((Path(__file__).parent.parent / "config").glob("*.yaml"))

GOOD = """\
model:
  type: inf-llm
  path: some/model
  n_init: 128
  n_local: 4096
  block_size: 128
  topk: 16
  repr_topk: 4
  max_cached_block: 32
  exc_block_size: 512
  fattn: false
  base: 1000000
  distance_scale: 1.0
max_len: 2147483647
chunk_size: 8192
conv_type: mistral-inst
"""


def changed(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new, 1)


# name: (text of the file, overrides, what the message must say)
WRONG: dict[str, tuple[str | bytes, list[str], list[str]]] = {
    "empty": ("", [], ["bad.yaml", "is empty"]),
    "only a comment": ("# nothing\n", [], ["bad.yaml", "is empty"]),
    "a list": ("- model\n", [], ["bad.yaml", "holds a list"]),
    "a number": ("5\n", [], ["bad.yaml", "single value"]),
    "a word": ("model\n", [], ["bad.yaml", "model must be a mapping"]),
    "bad yaml": ("model: [\n", [], ["bad.yaml", "not readable as YAML", "line 2"]),
    "a tab": ("model:\n\ttype: origin\n", [], ["bad.yaml", "not readable as YAML", "line 2"]),
    "duplicate key": (GOOD + "max_len: 3\n", [], ["bad.yaml", "duplicate key max_len"]),
    "binary": (b"\x80\x02\xff\x00model", [], ["bad.yaml", "not text (UTF-8)"]),
    "utf-16": (GOOD.encode("utf-16"), [], ["bad.yaml", "not text (UTF-8)"]),
    "python tag": ("model: !!python/name:os.getcwd\n", [], ["bad.yaml", "not readable as YAML"]),
    "huge": (GOOD + "#" * (1 << 20), [], ["bad.yaml", "more than 1 MiB"]),
    "no model": ("max_len: 5\n", [], ["bad.yaml", "model must be a mapping"]),
    "model is a word": ("model: mistral\n", [], ["bad.yaml", "model must be a mapping"]),
    "unknown section": (GOOD + "modle: {}\n", [], ["modle", "did you mean 'model'?"]),
    "number as key": (GOOD + "1: 2\n", [], ["1 is not a setting"]),
    "unknown key": (changed("topk", "tokp"), [], ["model.tokp", "did you mean 'topk'?"]),
    "key at the wrong level": (GOOD + "topk: 3\n", [], ["did you mean 'model.topk'?"]),
    "indented too far": (changed("max_len", "  max_len"), [], ["model.max_len", "beside model"]),
    "no type": (changed("  type: inf-llm\n", ""), [], ["model.type is missing", "inf-llm"]),
    "unknown type": (changed("inf-llm", "inf-lm"), [], ["model.type", "'inf-lm'", "did you mean"]),
    "type is a list": (changed("inf-llm", "[inf-llm]"), [], ["model.type"]),
    "no path": (changed("  path: some/model\n", ""), [], ["model.path is missing", "'demo'"]),
    "null path": (changed("some/model", "null"), [], ["model.path = null is not text"]),
    "blank path": (changed("some/model", "' '"), [], ["model.path", "empty"]),
    "key of another type": (changed("inf-llm", "stream-lm"), [], ["belongs to inf-llm"]),
    "text for a number": (changed("16", "sixteen"), [], ["model.topk = 'sixteen'", "whole number"]),
    "quoted number": (changed("16", "'16'"), [], ["model.topk = '16'", "it is text"]),
    "fraction": (changed("16", "16.5"), [], ["model.topk = 16.5 is not a whole number"]),
    "bool for a number": (changed("16", "true"), [], ["model.topk = true is not a whole number"]),
    "number for a bool": (changed("false", "1"), [], ["model.fattn = 1 is not true or false"]),
    "list": (changed("16", "[16]"), [], ["model.topk = [16] is not a whole number"]),
    "null": (changed("16", "null"), [], ["model.topk = null is not a whole number"]),
    "nothing": (changed("16", ""), [], ["model.topk = null is not a whole number"]),
    "nan": (changed("1000000", ".nan"), [], ["model.base = nan is not a finite number"]),
    "infinite": (changed("1000000", ".inf"), [], ["model.base = inf is not a finite number"]),
    "negative": (changed("128", "-128"), [], ["model.n_init = -128", "at least 0"]),
    "too large": (changed("4096", "99999999999"), [], ["model.n_local", "at most"]),
    "topk over cached": (changed("16", "64"), [], ["model.topk = 64", "max_cached_block = 32"]),
    "exc over local": (changed("4096", "256"), [], ["model.exc_block_size = 512", "n_local = 256"]),
    "repr over block": (changed("repr_topk: 4", "repr_topk: 129"), [], ["model.repr_topk = 129"]),
    "chunk under exc": (changed("8192", "256"), [], ["chunk_size = 256", "model.exc_block_size"]),
    "zero chunk": (changed("8192", "0"), [], ["chunk_size = 0 is too small"]),
    "unknown truncation": (GOOD + "truncation: prefix\n", [], ["truncation", "suffix, middle"]),
    "unknown conv_type": (changed("mistral-inst", "mistal"), [], ["conv_type", "did you mean"]),
    "unknown dtype": (GOOD, ["model.dtype=half"], ["model.dtype", "float16"]),
    "unset variable": (changed("4096", "${oc.env:NOT_SET}"), [], ["model.n_local", "NOT_SET"]),
    "unknown reference": (changed("4096", "${model.local}"), [], ["model.n_local", "model.local"]),
    "circle": (changed("4096", "${model.n_local}"), [], ["model.n_local", "Recursive"]),
    "wrong variable": (changed("4096", "${oc.env:WORDS}"), [], ["model.n_local", "'many words'"]),
    "missing mark": (changed("4096", "???"), [], ["model.n_local", "issing mandatory"]),
    "override without value": (GOOD, ["model.topk"], ["override 'model.topk'", "key=value"]),
    "override without key": (GOOD, ["=3"], ["override '=3'", "key=value"]),
    "override with nothing": (GOOD, ["model.topk="], ["override 'model.topk='", "no value"]),
    "override of no setting": (
        GOOD,
        ["model.tokp=3"],
        ["model.tokp", "did you mean 'model.topk'?"],
    ),
    "override without model": (GOOD, ["topk=3"], ["override 'topk=3'", "'model.topk'"]),
    "override of all": (GOOD, ["model={type: origin}"], ["override", "model is not a setting"]),
    "override unreadable": (GOOD, ["model.topk=[3"], ["override", "not readable as YAML"]),
    "override wrong type": (
        GOOD,
        ["model.topk=yes"],
        ["override 'model.topk=yes'", "whole number"],
    ),
    "an octal number": (GOOD.replace("topk: 16", "topk: 010"), [], ["010 is an octal number"]),
    "an octal override": (GOOD, ["model.topk=010"], ["override 'model.topk=010': 010 is an octal"]),
    "a time of day": (GOOD, ["chunk_size=1:30"], ["1:30 is a number to the base 60"]),
    "override too large": (GOOD, ["model.topk=33"], ["override 'model.topk=33'", "= 32"]),
    "override of a foreign key": (
        GOOD,
        ["model.type=stream-lm", "model.topk=3"],
        ["override 'model.topk=3'", "belongs to inf-llm"],
    ),
}


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def writer(text: str | bytes, name: str = "bad.yaml") -> Path:
        file = tmp_path / name
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    return writer


@pytest.mark.parametrize("name", WRONG)
def test_wrong_is_refused_in_one_line(
    name: str, write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORDS", "many words")
    monkeypatch.delenv("NOT_SET", raising=False)
    text, overrides, says = WRONG[name]
    with pytest.raises(ConfigError) as caught:
        load_config(write(text), overrides)
    message = str(caught.value)
    assert "\n" not in message
    for part in says:
        assert part in message
    if not overrides:
        assert "bad.yaml" in message


def test_missing_file_names_the_nearest(write: Any, tmp_path: Path) -> None:
    write(GOOD, "mistral.yaml")
    with pytest.raises(ConfigError, match=r"mistrl\.yaml.*no such file.*mistral\.yaml"):
        load_config(tmp_path / "mistrl.yaml")


@pytest.mark.parametrize("path", ["", "no\0name", "x" * 5000, "/dev/null", "a/folder/that/is/not"])
def test_paths_that_are_no_file(path: str) -> None:
    with pytest.raises(ConfigError):
        load_config(path)


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder"):
        load_config(tmp_path)


def test_published_form(write: Any) -> None:
    config = load_config(write(GOOD))
    assert config.model.path == "some/model"
    assert config.model.tokenizer_path is None
    assert isinstance(config.attention, InfLLMSettings)
    assert (config.attention.topk, config.attention.base) == (16, 1000000)
    assert (config.max_len, config.truncation, config.chunk_size) == (2147483647, None, 8192)
    assert config.source is not None
    assert config.source.endswith("bad.yaml")


def test_every_setting_can_be_overridden(write: Any) -> None:
    values = ["model.topk=8", "model.cache_strategy=lru-s", "model.score_decay=0.5", "max_len=100"]
    config = load_config(write(GOOD), [*values, "model.base=null", "truncation=middle"])
    assert isinstance(config.attention, InfLLMSettings)
    assert (config.attention.topk, config.attention.eviction) == (
        8,
        Choice("lru-s", {"decay": 0.5}),
    )
    assert (config.attention.base, config.max_len, config.truncation) == (None, 100, "middle")


def test_an_override_can_mend_the_file(write: Any) -> None:
    file = write(changed("16", "64"))
    settings = load_config(file, ["model.max_cached_block=64"]).attention
    assert isinstance(settings, InfLLMSettings)
    assert settings.topk == 64


def test_another_type_leaves_out_what_is_not_its_own(write: Any) -> None:
    config = load_config(write(GOOD), ["model.type=stream_llm"])
    assert config.attention.type == "stream-lm"
    assert config.attention.n_local == 4096
    assert "model.topk" in config.left_out
    assert load_config(write(GOOD)).left_out == ()


def test_model_takes_the_place_of_path_and_tokenizer(write: Any) -> None:
    file = write(changed("path: some/model", "path: some/model\n  tokenizer_path: other"))
    assert load_config(file).model.tokenizer_path == "other"
    config = load_config(file, model="my ${model}=1")
    assert (config.model.path, config.model.tokenizer_path) == ("my ${model}=1", None)


def test_values_from_the_environment(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("N", "2048")
    monkeypatch.setenv("MODELS", "/models")
    text = changed("4096", "${oc.env:N}").replace("some/model", "${oc.env:MODELS}/mistral")
    config = load_config(write(text.replace("1000000", "${oc.env:N}")))
    assert config.attention.n_local == 2048
    assert config.attention.base == 2048.0
    assert config.model.path == "/models/mistral"


def test_an_override_takes_the_place_of_published_keys_and_of_options(write: Any) -> None:
    """A choice on the command line is the whole choice, however the file said it."""
    file = write(
        changed("repr_topk: 4", "repr_topk: 4\n  perhead: true\n  scaling: {name: ntk, factor: 2}")
    )
    attention = load_config(
        file, ["model.selection=layer", "model.summary={name: most-attended, tokens: 8}"]
    ).attention
    assert isinstance(attention, InfLLMSettings)
    assert attention.selection == Choice("layer")
    assert attention.summary == Choice("most-attended", {"tokens": 8})
    yarn = "model.scaling={name: yarn, factor: 4, trained_len: 64}"
    assert load_config(file, [yarn]).attention.scaling.name == "yarn"
    with pytest.raises(
        ConfigError, match="factor = 2 has no effect with scaling = 'none'"
    ) as caught:
        load_config(write(GOOD), ["model.scaling={name: none, factor: 2}"])
    assert "override" in str(caught.value)


def test_byte_order_mark_and_windows_lines(write: Any) -> None:
    assert load_config(write("\ufeff" + GOOD.replace("\n", "\r\n"))) == load_config(write(GOOD))


def test_recorded_configuration_reads_back(write: Any) -> None:
    config = load_config(write(GOOD), ["model.perhead=true"])
    again = load_config(write(yaml.safe_dump(config.to_dict()), "again.yaml"))
    assert again == config


@pytest.mark.parametrize("file", SHIPPED, ids=[file.stem for file in SHIPPED])
def test_shipped(file: Path) -> None:
    config = load_config(file, model="m" if file.stem == ANY_MODEL else None)
    assert isinstance(config, RunConfig)
    assert "#" in file.read_text().splitlines()[0], "the first line says what it is for"


def test_shipped_covers_every_type_of_every_published_model() -> None:
    stems = {file.stem for file in SHIPPED}
    for model in ("mistral", "llama-3", "qwen", "vicuna", "minicpm"):
        for kind in ("origin", "infinite-lm", "stream-llm", "inf-llm"):
            assert f"{model}-{kind}" in stems
    assert len(ATTENTION.own) == 4


def test_a_name_is_looked_for_here_then_in_the_package(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = str(SHIPPED_CONFIGS / "demo-inf-llm.yaml")
    spellings = ("demo-inf-llm", "demo-inf-llm.yaml", "demo", "demo.yaml", "config/demo.yaml")
    assert {load_config(name).source for name in spellings} == {own}
    (tmp_path / "config").mkdir()
    here = write(GOOD, "config/demo.yaml").relative_to(tmp_path)
    assert load_config("demo").source == str(here)
    assert load_config("demo-inf-llm").source == own


@pytest.mark.parametrize(
    ("name", "near"), [("dmeo", "'demo'"), ("qwen3-infllm", "'qwen3-inf-llm'"), ("a/b/demo", "")]
)
def test_a_name_that_is_none_leads_to_the_close_ones(name: str, near: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}': there is no such file or .*{near}"):
        load_config(name)


def test_a_model_without_a_configuration_takes_its_own_or_that_of_any() -> None:
    assert suited("demo") == "demo-inf-llm"
    assert suited("Qwen/Qwen3-8B") == "qwen3-inf-llm"
    assert load_config(suited("/some/model"), model="/some/model").model.path == "/some/model"
    with pytest.raises(ConfigError, match=r"model\.path is missing"):
        load_config(ANY_MODEL)


@pytest.mark.parametrize("path", [None, 3, ["x"], b"x.yaml"], ids=repr)
def test_what_is_no_path(path: Any) -> None:
    with pytest.raises(ConfigError, match="is the path of its YAML file, not"):
        load_config(path)


@pytest.mark.parametrize("overrides", ["model.topk=3", [3], 3, {"model.topk": 3}], ids=repr)
def test_overrides_are_a_list_of_texts(write: Any, overrides: Any) -> None:
    with pytest.raises(ConfigError, match=r"overrides = .* is no list of key=value texts"):
        load_config(write(GOOD), overrides)
