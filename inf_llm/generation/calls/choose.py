"""Which form of calls a model has."""

from __future__ import annotations

from inf_llm.generation.calls.base import CallForm
from inf_llm.variants import CALLS


def form_of(template: str | None, name: str | None = None) -> CallForm:
    """The form of this name; without one, the first whose mark is in the chat template.

    Raises:
        SettingsError: there is no form of this name.
    """
    if name is not None:
        form: CallForm = CALLS.get(name)()
        return form
    forms: list[CallForm] = [CALLS.get(row)() for row in CALLS]
    found = (form for form in forms if any(mark in (template or "") for mark in form.marks))
    return next(found, None) or CALLS.get("bare")()
