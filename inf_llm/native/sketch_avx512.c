/* sketch.c for processors with AVX-512 and its int8 instructions; no other may run it. */

#include "sketch.h"

#ifdef SEVERAL_PROCESSORS

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512bw,avx512vl,avx512vnni"))), apply_to = function)
#else
#pragma GCC target("avx512bw,avx512vl,avx512vnni")
#endif

#define VARIANT sketch_avx512
#define NAME "avx512"
#define VNNI
#include "sketch.c"

#ifdef __clang__
#pragma clang attribute pop
#endif

#endif
