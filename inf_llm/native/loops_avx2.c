/* loops.c for processors with AVX2 and FMA. */

#include "loops.h"

#ifdef SEVERAL_PROCESSORS

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif

#define VARIANT loops_avx2
#define NAME "avx2"
#define AVX2
#include "loops.c"

#ifdef __clang__
#pragma clang attribute pop
#endif

#endif
