"""Tasks as data: every name has an owner, prompts are cut behind the document, files are parsed."""

from __future__ import annotations

import json

import pytest

from benchmark.prompts import PromptRules, lay_out, tokenize
from benchmark.rows import Row
from benchmark.tasks import benchmarks, owner
from benchmark.tasks.base import (
    DataError,
    Instance,
    Prompt,
    ScoreOptions,
    Source,
    TaskInfo,
    render,
)
from benchmark.tasks.official import read_dict, read_string
from benchmark.worker import group
from inf_llm.errors import TextError

EVERYTHING = [(b, name) for b in benchmarks() for name in b.names()]


def full_name(benchmark, name):
    return f"{name}@1k" if benchmark.name in ("needles", "ruler") else name


@pytest.mark.parametrize(("benchmark", "name"), EVERYTHING, ids=lambda v: getattr(v, "name", v))
def test_every_task_has_one_owner_a_limit_and_a_metric(benchmark, name):
    task = full_name(benchmark, name)
    assert [b.name for b in benchmarks() if b.owns(task)] == [benchmark.name]
    assert owner(task).info(task).max_new_tokens > 0
    answers = ["Paragraph 1 段落1", "Paragraph 2 段落2"]
    if name in ("math_find", "math_calc", "code_run"):
        answers = [1]
    row = Row("0", "", answers, ("A",), 5, None, {})
    assert 0.0 <= benchmark.score(task, row, ScoreOptions()) <= 1.0


def test_counts_of_tasks():
    counts = {b.name: len(b.names()) for b in benchmarks()}
    assert counts["longbench"] == 21 + 13
    assert counts["infinitebench"] == 12
    assert counts["ruler"] == 13


def test_completion_tasks_get_no_chat_template():
    plain = [name for b, name in EVERYTHING if b.name == "longbench" and not b.info(name).chat]
    assert {n.removesuffix("_e") for n in plain} == {
        "trec", "triviaqa", "samsum", "lsht", "lcc", "repobench-p",
    }  # fmt: skip
    assert owner("samsum").info("samsum").stop == ("\n",)


def test_render_cuts_behind_the_document():
    prompt = render("Q: {input}\n{context}\n\n{input}?", {"context": "{doc}", "input": "why"})
    assert prompt == Prompt("Q: why\n{doc}", "\n\nwhy?")
    with pytest.raises(DataError, match=r"asks for \{key\}"):
        render("{key}", {"context": ""})


def make_longbench(folder):
    (folder / "longbench").mkdir()
    (folder / "longbench" / "dataset2prompt.json").write_text(
        '{"trec": "Types:\\n{context}\\n{input}"}'
    )
    (folder / "longbench" / "dataset2maxlen.json").write_text('{"trec": 7}')
    sample = {"input": "Type:", "context": "Q1", "answers": ["Food"], "length": 2}
    sample |= {"all_classes": "['Food', 'Date']", "dataset": "trec"}
    for name in ("trec", "trec_e"):
        (folder / "longbench" / f"{name}.jsonl").write_text(json.dumps(sample) + "\n")


@pytest.mark.parametrize("task", ["trec", "trec_e"])
def test_longbench_files(tmp_path, task):
    make_longbench(tmp_path)
    benchmark = owner(task)
    source = Source(tmp_path, benchmark.prompt_set(None))
    (instance,) = benchmark.load(task, source)
    assert instance.prompt == Prompt("Types:\nQ1", "\nType:")
    assert instance.classes == ("Food", "Date")
    assert benchmark.info(task, source).max_new_tokens == 7


INFINITEBENCH = {
    "code_run": {
        "context": "def func_2(x): ...",
        "input": "Please give me the return value of func_2(-9).",
        "answer": [3],
    },
    "math_find": {
        "prompt": "Find the largest number:",
        "context": "[1, 5]",
        "input": "Answer with one number. The largest number of the list is: ",
        "answer": [5],
    },
    "kv_retrieval": {"context": "{}", "input": '\nKey: "k-1"\nThe value is: ', "answer": ["v"]},
    "longbook_choice_eng": {
        "context": "A book.",
        "input": "Who?",
        "options": ["Al", "Bo", "Cy", "Di"],
        "answer": ["Cy"],
    },
}
TEMPLATES = {
    "code_run": "{func}|{context}|{func_call}",
    "math_find": "{prefix}|{context}|{input}",
    "kv_retrieval": "{key}|{context}|{input}",
    "longbook_choice_eng": "{context}|{question}|{OPTION_C}",
}
RENDERED = {
    "code_run": "func_2|def func_2(x): ...|func_2(-9)",
    "math_find": "What is the largest number in the following list?|[1, 5]|"
    "Answer with one number. The largest number of the list is: ",
    "kv_retrieval": '"k-1"|{}|\nKey: "k-1"\nThe value is: ',
    "longbook_choice_eng": "A book.|Who?|Cy",
}


@pytest.fixture
def infinitebench(tmp_path):
    folder = tmp_path / "infinitebench"
    folder.mkdir()
    for task, sample in INFINITEBENCH.items():
        (folder / f"{task}.jsonl").write_text(json.dumps({"id": 4, **sample}) + "\n")
    (folder / "infllm_prompts.json").write_text(json.dumps(TEMPLATES))
    code = "raise SystemExit('this file must not be run')\ngpt4_templates = {\n"
    code += "".join(f"  {k!r}: {v[:3]!r} + {v[3:]!r},  # noqa\n" for k, v in TEMPLATES.items())
    (folder / "prompt.py").write_text(code + "}\n")
    return tmp_path


@pytest.mark.parametrize("task", INFINITEBENCH)
@pytest.mark.parametrize("prompts", [None, "gpt4"])
def test_infinitebench_prompts_come_from_the_fetched_files(infinitebench, task, prompts):
    benchmark = owner(task)
    source = Source(infinitebench, benchmark.prompt_set(prompts))
    (instance,) = benchmark.load(task, source)
    assert instance.prompt.text == RENDERED[task]
    assert instance.id == "4"


def test_option_answers_carry_their_letter(infinitebench):
    benchmark = owner("longbook_choice_eng")
    (instance,) = benchmark.load("longbook_choice_eng", Source(infinitebench, "plain"))
    assert instance.answers == ["Cy", "C"]


def test_missing_files_say_how_to_get_them(tmp_path):
    benchmark = owner("passkey")
    with pytest.raises(DataError, match=r"download\.sh infinitebench"):
        benchmark.load("passkey", Source(tmp_path, "infllm"))
    (tmp_path / "passkey.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match=r"prompts plain"):
        benchmark.load("passkey", Source(tmp_path, "infllm"))


def test_longeval_is_cut_behind_the_record(tmp_path):
    prompt = "Remember.\nline a-b: REGISTER_CONTENT is <1>\nTell me <REGISTER_CONTENT> in a-b."
    case = {"prompt": prompt, "expected_number": 1}
    (tmp_path / "200_lines.jsonl").write_text(json.dumps(case) + "\n")
    (instance,) = owner("longeval-200").load("longeval-200", Source(tmp_path, "official"))
    assert instance.prompt.text == prompt
    assert instance.prompt.question == "Tell me <REGISTER_CONTENT> in a-b."


RULER_CONSTANTS = """
TASKS = {
    'niah': {'tokens_to_generate': 128,
             'template': "Some {type_needle_v} hide.\\n{context}\\n"
                         "What are all {type_needle_v} of {query}?",
             'answer_prefix': " The {type_needle_v} of {query} are"},
    'variable_tracking': {'template': "Track.\\n{context}\\nWho is {query}?",
                          'answer_prefix': " These {num_v} are {query}: "},
    'qa': {'template': "Read.\\n{context}\\nQ: {query}", 'answer_prefix': " A:"},
}
"""


@pytest.fixture
def ruler(tmp_path):
    (tmp_path / "ruler").mkdir()
    (tmp_path / "ruler" / "constants.py").write_text(RULER_CONSTANTS)
    needle = 'needle = "One of the {type_needle_v} of {key}: {value}."\nneedle = 3\n'
    (tmp_path / "ruler" / "niah.py").write_text("import nowhere\n" + needle)
    squad = {"data": [{"paragraphs": [
        {"context": f"Text {i}. " * 10,
         "qas": [{"question": f"What {i}?", "answers": [{"text": f"Text {i}"}],
                  "is_impossible": i == 1}]} for i in range(4)]}]}  # fmt: skip
    (tmp_path / "ruler" / "squad.json").write_text(json.dumps(squad))
    return tmp_path


def ruler_samples(folder, task, prompts):
    source = Source(folder, prompts, tokenizer=len, samples=2)
    return owner(task).load(task, source)


def test_ruler_speaks_with_its_own_words_where_they_were_fetched(ruler):
    instance = ruler_samples(ruler, "niah_single_1@3k", "ruler")[0]
    assert instance.prompt.document.startswith("A number hide.\n")
    assert "One of the numbers of " in instance.prompt.document
    assert "What is number of " in instance.prompt.question
    instance = ruler_samples(ruler, "vt@9k", "ruler")[0]
    assert " These 5 are " in instance.prompt.question
    own = ruler_samples(ruler, "niah_single_1@3k", "own")[0]
    assert "secret number" in own.prompt.document


def test_ruler_questions_of_squad(ruler):
    instance = ruler_samples(ruler, "qa_1@1k", "ruler")[0]
    assert instance.prompt.document.startswith("Read.\nDocument 1:\nText ")
    assert instance.answers[0] in instance.prompt.document
    assert "What 1?" not in instance.prompt.question


def test_official_files_are_parsed_not_run(tmp_path):
    path = tmp_path / "f.py"
    path.write_text("x = 1 / 0\nd = {'a': 'b' 'c', 'n': {'k': 3}}\ns = 'one'\nbad = {**d}\n")
    assert read_dict(path, "d") == {"a": "bc", "n": {"k": 3}}
    assert read_string(path, "s") == "one"
    for name, says in (("none", "assigns no none"), ("bad", "not a plain dict")):
        with pytest.raises(DataError, match=says):
            read_dict(path, name)


class Words:
    """A tokenizer whose tokens are words; it can tell a start token and a chat template."""

    bos_token = "<s>"
    bos_token_id = 1
    eos_token_id = 2
    chat_template = "x"

    def __call__(self, text, add_special_tokens=True, **_):
        ids = [hash(word) for word in text.split()]
        return {"input_ids": [1, *ids] if add_special_tokens else ids}

    def apply_chat_template(self, messages, chat_template, tokenize, add_generation_prompt):
        return f"<s> [I] {messages[0]['content'].strip()} [/I]"


def test_tokens_are_those_of_the_whole_prompt():
    tokens = tokenize(Prompt("a b c ", "d e"), Words(), 100, "none")
    assert tokens.document + tokens.question == tuple(Words()("a b c d e")["input_ids"])
    assert len(tokens.document) == 4
    assert tokens.truncated_from is None


def test_a_seam_inside_a_token_goes_to_the_question():
    tokens = tokenize(Prompt("a b wo", "rd e"), Words(), 100, "none")
    assert len(tokens.document) == 3
    assert len(tokenize(Prompt("a b", ""), Words(), 100, "none").question) == 1


def test_no_second_start_token_behind_a_template():
    prompt = lay_out(Prompt("  a b", " c "), Words(), None)
    assert prompt == Prompt("<s> [I] a b", " c [/I]", special_tokens=False)
    assert 1 not in tokenize(prompt, Words(), 100, "none").document


def test_suffix_truncation_keeps_128_tokens_and_the_end():
    words = [f"w{i}" for i in range(1000)]
    prompt = Prompt(" ".join(words[:990]) + " ", " ".join(words[990:]))
    whole = Words()(prompt.text)["input_ids"]
    cut = tokenize(prompt, Words(), 300, "suffix")
    assert cut.document + cut.question == tuple(whole[:128] + whole[-172:])
    assert (len(cut.question), cut.truncated_from) == (10, 1001)
    cut = tokenize(prompt, Words(), 300, "middle")
    assert cut.document + cut.question == tuple(whole[:150] + whole[-150:])
    with pytest.raises(TextError, match="1,001 tokens, but max_len leaves room for 300"):
        tokenize(prompt, Words(), 300, "none")


@pytest.mark.parametrize(
    ("rule", "conv_type", "wants", "wraps"),
    [("auto", None, True, True), ("auto", None, False, False), ("always", None, False, True),
     ("never", None, True, False), ("auto", "plain", True, False)],
)  # fmt: skip
def test_chat_rules(rule, conv_type, wants, wraps):
    assert PromptRules(rule, conv_type, "none", 10).wraps(wants) == wraps


def test_jobs_share_documents_and_lone_questions_do_not(infinitebench):
    instances = [
        Instance(str(i), Prompt(d, "?"), []) for i, d in enumerate(["a", "b", "a", "", ""])
    ]
    jobs = group("t", TaskInfo(5), instances)
    assert [[i.id for i in job.instances] for job in jobs] == [["0", "2"], ["1"], ["3"], ["4"]]
    assert [job.shared for job in jobs] == [True, False, False, False]
