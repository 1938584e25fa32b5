"""The value of a setting that names a variant: ``lru``, or ``{name: lru-s, decay: 0.1}``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from inf_llm.errors import SettingsError
from inf_llm.registry import Registry, accepted


@dataclass(frozen=True)
class Choice:
    """A row of a registry, with options.

    Attributes:
        name: name of the row.
        options: values by option name; options that are absent have the defaults of the row.
        spelled: the published keys that gave "name" and the options, if the file used such keys.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    spelled: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, key: str, value: object) -> Choice:
        """Read the value of setting `key`: a name, or a mapping with a name and options.

        Raises:
            SettingsError: the value is neither.
        """
        if isinstance(value, Choice):
            return value
        if isinstance(value, str):
            return cls(value)
        if isinstance(value, Mapping) and isinstance(value.get("name"), str):
            return cls(value["name"], {k: v for k, v in value.items() if k != "name"})
        raise SettingsError(
            f"{key} = {value!r} is not text, and not a mapping with a name and options: "
            "write {name: ...}",
            key,
        )

    def plain(self) -> Any:
        """The choice in plain types, in a form that `of` reads."""
        return {"name": self.name, **self.options} if self.options else self.name

    def check(self, key: str, registry: Registry) -> None:
        """Check that the row named by setting `key` exists and has these options.

        Raises:
            SettingsError: the row is unknown, or an option is unknown, missing or out of range.
        """
        spelled = self.spelled.get("name", key)
        if self.name not in registry:
            known = accepted(self.name, registry)
            raise SettingsError(f"{spelled} = {self.name!r} is not known; {known}", spelled)
        settings = registry.options(self.name)
        for option in self.options:
            if option not in _names(settings):
                self._refuse_option(key, option, registry)
        needed = _names(settings, needed=True)
        for option in needed:
            if option not in self.options:
                how = ", ".join((f"name: {self.name}", *(f"{each}: ..." for each in needed)))
                message = f"{spelled} = {self.name!r} needs {option}: write {key}: {{{how}}}"
                raise SettingsError(message, spelled)
        self._check_values(key, settings, None)

    def check_with(self, key: str, registry: Registry, settings: object) -> None:
        """Check the options against the other settings, if the row has a rule for this.

        Such a rule is a method `check_with(settings)` of the dataclass of the row's options.

        Raises:
            SettingsError: the options contradict the other settings.
        """
        self._check_values(key, registry.options(self.name), settings)

    def _check_values(self, key: str, kind: Any, others: object) -> None:
        if kind is None:
            return
        try:
            options = kind(**self.options)
            if others is not None and hasattr(options, "check_with"):
                options.check_with(others)
        except SettingsError as error:
            option = error.key or "name"
            spelled = self._spelled(key, option)
            message = f"{spelled}{str(error).removeprefix(option)}"
            raise SettingsError(message, spelled.partition(".")[0]) from None

    def _refuse_option(self, key: str, option: str, registry: Registry) -> NoReturn:
        """Raise an error that names the rows with this option, or else the options of this row."""
        spelled, name = self._spelled(key, option), self.spelled.get("name", key)
        owners = [row for row in registry if option in _names(registry.options(row))]
        options = _names(registry.options(self.name))
        if owners:
            rule = f"has no effect with {name} = {self.name!r}: leave it out, or set {name} to "
            rule += " or ".join(map(repr, owners))
        else:
            rule = f"is not an option of {self.name!r}; "
            rule += accepted(option, options) if options else "it takes none"
        message = f"{spelled} = {self.options[option]!r} {rule}"
        raise SettingsError(message, spelled.partition(".")[0])

    def _spelled(self, key: str, option: str) -> str:
        return self.spelled.get(option, f"{key}.{option}")

    def build(self, registry: Registry, *given: Any) -> Any:
        """Call the row's class or function with `given`, and with its options as keywords."""
        made, settings = registry.get(self.name), registry.options(self.name)
        return made(*given) if settings is None else made(*given, **vars(settings(**self.options)))


def _names(settings: Any, needed: bool = False) -> list[str]:
    """The names of a row's options, or only of the options without a default."""
    fields = () if settings is None else dataclasses.fields(settings)
    return [option.name for option in fields if not needed or _has_no_default(option)]


def _has_no_default(option: dataclasses.Field[Any]) -> bool:
    return option.default is dataclasses.MISSING and option.default_factory is dataclasses.MISSING
