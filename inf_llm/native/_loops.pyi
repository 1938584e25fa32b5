from types import ModuleType

variants: dict[str, ModuleType]
