"""Builds the search of blocks in C where that can be done; all else is in pyproject.toml.

The extension is optional: where there is no compiler, the package installs and torch searches.
"""

from __future__ import annotations

import sysconfig

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError

NATIVE = "inf_llm/native"
SOURCES = ("module.c", "sketch.c", "sketch_avx2.c", "sketch_avx512.c")
PYTHON = "cp310"  # the oldest; the stable ABI serves all later ones
STABLE = not sysconfig.get_config_var("Py_GIL_DISABLED")  # Python without GIL has no stable ABI


class BuildSearch(build_ext):
    """Builds with OpenMP's threads, or with its vector loops only, as Apple's compiler does."""

    def build_extension(self, ext: Extension) -> None:
        """Build it; an error becomes a warning, for the extension is optional."""
        if self.compiler.compiler_type == "msvc":
            super().build_extension(ext)
            return
        try:
            self._build_with(ext, "-fopenmp")
        except (CompileError, LinkError):
            self._build_with(ext, "-fopenmp-simd")

    def _build_with(self, ext: Extension, openmp: str) -> None:
        ext.extra_compile_args = ["-O3", "-fno-math-errno", openmp]
        ext.extra_link_args = [openmp, "-lm"]
        super().build_extension(ext)


SEARCH = Extension(
    "inf_llm.native._sketch",
    [f"{NATIVE}/{source}" for source in SOURCES],
    depends=[f"{NATIVE}/sketch.h", f"{NATIVE}/sketch.c"],
    define_macros=[("Py_LIMITED_API", "0x030A0000")],
    py_limited_api=True,
    optional=True,
)

setup(
    ext_modules=[SEARCH] if STABLE else [],
    cmdclass={"build_ext": BuildSearch},
    options={"bdist_wheel": {"py_limited_api": PYTHON}} if STABLE else {},
)
