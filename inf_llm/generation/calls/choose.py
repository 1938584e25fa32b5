"""Choice of the call form of a model."""

from __future__ import annotations

from inf_llm.generation.calls.base import CallForm
from inf_llm.variants import CALLS


def form_of(template: str | None, name: str | None = None) -> CallForm:
    """Return the call form of a name; without a name, the first with a mark in the chat template.

    The form is "bare" if the template has no mark of any form.

    Raises:
        SettingsError: there is no form of this name.
    """
    if name is not None:
        form: CallForm = CALLS.get(name)()
        return form
    forms: list[CallForm] = [CALLS.get(row)() for row in CALLS]
    found = (form for form in forms if any(mark in (template or "") for mark in form.marks))
    return next(found, None) or CALLS.get("bare")()
