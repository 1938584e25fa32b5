/* What sketch.c needs, and what it makes: a Python module of its functions for each kind of
   processor. All headers are here, so that the sources for one kind can change the instructions
   that the compiler may use behind them. */

#pragma once

#include <Python.h>

#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#ifdef __GNUC__ /* Clang too */
#define PREFETCH __builtin_prefetch
#ifdef __x86_64__
#define SEVERAL_PROCESSORS
#include <immintrin.h>
#endif
#else
#define PREFETCH(address) ((void)(address))
#endif

extern struct PyModuleDef sketch_baseline;
#ifdef SEVERAL_PROCESSORS
extern struct PyModuleDef sketch_avx2, sketch_avx512;
#endif
