"""Builds the loops of decoding in C where that is possible; the rest is in pyproject.toml.

The extension is optional: without a compiler the package installs, and torch computes the same.
"""

from __future__ import annotations

import sysconfig

from setuptools import Extension, setup

NATIVE = "inf_llm/native"
PYTHON = "cp310"  # the oldest; the stable ABI serves all later ones
STABLE = not sysconfig.get_config_var("Py_GIL_DISABLED")  # Python without GIL has no stable ABI

LOOPS = Extension(
    "inf_llm.native._loops",
    [f"{NATIVE}/{source}" for source in ("module.c", "loops.c", "loops_avx2.c")],
    depends=[f"{NATIVE}/loops.h", f"{NATIVE}/loops.c"],
    define_macros=[("Py_LIMITED_API", "0x030A0000")],
    # vectors are passed only between inlined functions, so no ABI is concerned
    extra_compile_args=["-O3", "-fno-math-errno", "-Wno-psabi"],
    py_limited_api=True,
    optional=True,
)

setup(
    ext_modules=[LOOPS] if STABLE else [],
    options={"bdist_wheel": {"py_limited_api": PYTHON}} if STABLE else {},
)
