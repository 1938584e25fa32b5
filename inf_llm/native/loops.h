/* What loops.c needs, and its modules, one per kind of processor. All headers are included here:
   a file that changes the instruction set does so after them. */

#pragma once

#include <Python.h>

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef __x86_64__
#define SEVERAL_PROCESSORS
#include <immintrin.h>
#endif

extern struct PyModuleDef loops_baseline;
#ifdef SEVERAL_PROCESSORS
extern struct PyModuleDef loops_avx2;
#endif
