"""Contexts hold what is asked for, where they say it stands, and are the same for the same seed."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest

from inf_llm.errors import SettingsError
from inf_llm.fidelity.drafts import KEYS, NUMBERS, OWN, TURNS, Source
from inf_llm.fidelity.tasks import ROOM, ContextBuilder
from inf_llm.generation.layout import TemplateLayout
from inf_llm.needles.haystack import haystack_of
from tests.chat.conftest import TEMPLATE


def _text(workshop: ContextBuilder, ids: tuple[int, ...]) -> str:
    return str(workshop.tokenizer.decode(list(ids)))


@pytest.mark.parametrize("task", [*OWN, "niah_single_2", "passkey"])
def test_a_context_holds_its_answers_where_it_says(workshop: ContextBuilder, task: str) -> None:
    context = workshop.context(task, 3)
    assert context == workshop.context(task, 3)
    assert context.ids != workshop.context(task, 4).ids
    assert len(context.ids) + ROOM <= workshop.length
    assert len(context.ids) >= 0.6 * workshop.length
    assert len(context.questions) == (2 if task in OWN else 1)
    for question in context.questions:
        assert _text(workshop, question.answer).strip() == question.text
        assert question.needle is not None
        text = _text(workshop, context.ids[slice(*question.needle)])
        assert question.text in text
        assert question.depth == pytest.approx(question.needle[0] / len(context.ids), abs=1e-4)
    assert len(context.prose) == (64 if task in OWN else 0)


def test_seeds_change_contexts(workshop: ContextBuilder) -> None:
    other = dataclasses.replace(workshop, seed=1000)
    assert workshop.context("number", 0).ids != other.context("number", 0).ids


@pytest.mark.parametrize("wordings", [NUMBERS, KEYS, TURNS])
def test_every_wording_occurs_and_holds_key_and_value(wordings: Any) -> None:
    assert len(wordings) >= 2
    for each in wordings:
        assert "{key}" in each.fact
        assert "{value}" in each.fact
        assert "{key}" in each.question
        assert "{value}" not in each.question + each.lead


def test_the_seed_chooses_a_wording() -> None:
    source = Source(haystack_of("One sentence here. " * 200), 2)
    drafts = [OWN["number"](random.Random(str(seed)), 300, source) for seed in range(20)]
    questions = {draft.asks[0].question.split()[0] for draft in drafts}
    assert len(questions) >= len(NUMBERS) - 1


def test_copied_passages_go_on_as_the_document_does(workshop: ContextBuilder) -> None:
    context = workshop.context("copy", 0)
    document = _text(workshop, context.ids)
    for question in context.questions:
        given = _text(workshop, question.tail).rpartition("\n")[2]
        assert f"{given} {question.text}" in document
        assert document.count(given) == 1


def test_the_template_of_the_model_is_used(workshop: ContextBuilder) -> None:
    layout = TemplateLayout(workshop.tokenizer, TEMPLATE, "a template")
    chat = dataclasses.replace(workshop, layout=layout)
    context = chat.context("turns", 0)
    text = _text(chat, context.ids)
    assert text.startswith("<user>")
    assert text.count("<user>") == 3
    tail = _text(chat, context.questions[0].tail)
    assert tail.startswith("\n\n")
    assert "</s><assistant>You" in tail or "</s><assistant>Your" in tail


def test_the_users_own_questions(workshop: ContextBuilder) -> None:
    pairs = (("Who called?", "sentence"), ("Who did not?", "nobody at all"))
    prose = haystack_of("Another sentence stands here. " * 300)
    answered = dataclasses.replace(workshop, source=Source(prose, 2, pairs))
    questions = answered.context("qa", 0).questions
    assert [question.text for question in questions] == ["sentence"]
    none = dataclasses.replace(workshop, source=Source(prose, 2, pairs[1:]))
    with pytest.raises(SettingsError, match="no answer of --qa-file"):
        none.context("qa", 0)


def test_what_cannot_be_made_is_refused(workshop: ContextBuilder) -> None:
    with pytest.raises(SettingsError, match="did you mean 'number'"):
        workshop.context("numbre", 0)
    short = dataclasses.replace(workshop, length=300)
    with pytest.raises(SettingsError, match="length 300 is too short"):
        short.context("qa", 0)
