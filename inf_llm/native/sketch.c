/* Questions to a sketch, and their answers; what it is and why it is exact is said in
   inf_llm/memory/sketch.py, whose torch statement of the same these functions are tested against.

   By itself this file runs on any processor; sketch_avx2.c and sketch_avx512.c include it. */

#include "sketch.h"

#ifndef VARIANT
#define VARIANT sketch_baseline
#define NAME "baseline"
#endif

enum {
    STEPS = 127,
    GROUP = 16,  /* blocks that share a scale */
    AHEAD = 8,   /* rows that are fetched before they are needed */
    LINE = 64,   /* bytes that are fetched together */
    SMALL = 1 << 18 /* codes that one thread multiplies sooner than two */
};

static float dot(const float *a, const float *b, int64_t n)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

/* Vectors of blocks, in float32 or in bfloat16, the upper half of one. */
typedef struct {
    const void *start;
    int64_t width;
    int half;
} Rows;

static const void *row_of(const Rows *rows, int64_t row)
{
    return (const char *)rows->start + row * rows->width * (rows->half ? 2 : 4);
}

static float score_of(const Rows *rows, int64_t row, const float *query)
{
    if (!rows->half)
        return dot(row_of(rows, row), query, rows->width);
    const uint16_t *values = row_of(rows, row);
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < rows->width; i++) {
        union {
            uint32_t bits;
            float value;
        } wide = {(uint32_t)values[i] << 16};
        sum += wide.value * query[i];
    }
    return sum;
}

static void prefetch(const void *start, int64_t bytes)
{
    for (int64_t i = 0; i < bytes; i += LINE)
        PREFETCH((const char *)start + i);
}

/* Rounds values in steps of 1 / scale to codes. Still in these steps, `left` is what is left over;
   adds up the squares of the values, and gives those of what is left. */
static float rounded(const float *values, float scale, int64_t n, int8_t *codes, float *left,
                     float *squares)
{
    float lost = 0, whole = 0;
#pragma omp simd reduction(+ : lost, whole)
    for (int64_t i = 0; i < n; i++) {
        float exact = values[i] * scale;
        float code = rintf(exact);
        codes[i] = (int8_t)code;
        left[i] = exact - code;
        lost += left[i] * left[i];
        whole += exact * exact;
    }
    *squares = whole;
    return lost;
}

/* Products of one query's codes with four rows of them, `stride` apart. */
#ifdef VNNI
static void multiply_four(const int8_t *query, const int8_t *rows, int64_t stride, int64_t n,
                          int32_t *out)
{
    /* The instruction wants one side unsigned: 128 is added to each code, and taken off again. */
    const __m512i shift = _mm512_set1_epi8((char)128), ones = _mm512_set1_epi8(1);
    __m512i sums[4] = {0}, queries = _mm512_setzero_si512();
    for (int64_t i = 0; i < n; i += 64) {
        __mmask64 there = n - i >= 64 ? ~0ull : (1ull << (n - i)) - 1;
        __m512i q = _mm512_maskz_loadu_epi8(there, query + i);
        queries = _mm512_dpbusd_epi32(queries, ones, q);
        for (int r = 0; r < 4; r++) {
            __m512i codes = _mm512_maskz_loadu_epi8(there, rows + r * stride + i);
            sums[r] = _mm512_dpbusd_epi32(sums[r], _mm512_xor_si512(codes, shift), q);
        }
    }
    int32_t extra = 128 * _mm512_reduce_add_epi32(queries);
    for (int r = 0; r < 4; r++)
        out[r] = _mm512_reduce_add_epi32(sums[r]) - extra;
}
#elif defined(AVX2)
static int32_t sum_of(__m256i values)
{
    int32_t sum = 0, each[8];
    _mm256_storeu_si256((__m256i *)each, values);
    for (int i = 0; i < 8; i++)
        sum += each[i];
    return sum;
}

static __m256i widened(const int8_t *codes)
{
    return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)codes));
}

static void multiply_four(const int8_t *query, const int8_t *rows, int64_t stride, int64_t n,
                          int32_t *out)
{
    __m256i sums[4] = {0};
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        __m256i q = widened(query + i);
        for (int r = 0; r < 4; r++) {
            __m256i pairs = _mm256_madd_epi16(widened(rows + r * stride + i), q);
            sums[r] = _mm256_add_epi32(sums[r], pairs);
        }
    }
    for (int r = 0; r < 4; r++) {
        out[r] = sum_of(sums[r]);
        for (int64_t j = i; j < n; j++)
            out[r] += rows[r * stride + j] * query[j];
    }
}
#else
static void multiply_four(const int8_t *query, const int8_t *rows, int64_t stride, int64_t n,
                          int32_t *out)
{
    for (int r = 0; r < 4; r++, rows += stride) {
        int32_t sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < n; i++)
            sum += (int32_t)rows[i] * query[i];
        out[r] = sum;
    }
}
#endif

/* Codes queries (questions * each, width), and multiplies them with the codes of their own vectors,
   codes (count, vectors * width), count a multiple of GROUP.

   products (parts, queries, count): where there are two parts, the second is `fine` times finer.
   facts (3, queries): slack, step and common of inf_llm.memory.sketch.Bounds; `lost` and `kept`
   are what rounding took off the longest vector, and what it left.
   Returns 0, or 1 where there is no memory. */
static int ask_sketch(const float *queries, const float *centre, int64_t questions, int64_t each,
                      int64_t vectors, int64_t width, int64_t parts, float fine, float lost,
                      float kept, const int8_t *codes, int64_t count, int threads,
                      int32_t *products, float *facts)
{
    int64_t all = questions * each, shared = each / vectors, wide = vectors * width;
    int8_t *rows = malloc(parts * all * width);
    float *left = malloc(sizeof(float) * width);
    if (!rows || !left) {
        free(rows);
        free(left);
        return 1;
    }
    for (int64_t n = 0; n < all; n++) {
        const float *query = queries + n * width;
        float most = 1e-30f * STEPS;
        for (int64_t i = 0; i < width; i++)
            most = fabsf(query[i]) > most ? fabsf(query[i]) : most;
        float step = most / STEPS;
        float length, over = rounded(query, 1 / step, width, rows + n * width, left, &length), rest;
        length = sqrtf(length);
        if (parts == 2) {
            step /= fine;
            length *= fine;
            over = rounded(left, fine, width, rows + (all + n) * width, left, &rest);
        }
        facts[n] = length * lost + sqrtf(over) * kept;
        facts[all + n] = step;
        facts[2 * all + n] = dot(query, centre + n % each / shared * width, width);
    }
#pragma omp parallel for schedule(static) num_threads(threads) if (count * wide > SMALL)
    for (int64_t block = 0; block < count; block += 4) {
        const int8_t *four = codes + block * wide;
        prefetch(four + AHEAD * wide, 4 * wide);
        for (int64_t n = 0; n < parts * all; n++)
            multiply_four(rows + n * width, four + n % each / shared * width, wide, width,
                          products + n * count + block);
    }
    free(rows);
    free(left);
    return 0;
}

/* The `room` best of what is offered, the worst of them on top. */
typedef struct {
    float *scores;
    int64_t *blocks;
    int64_t size, room;
} Heap;

static void put(Heap *heap, int64_t at, float score, int64_t block)
{
    heap->scores[at] = score;
    heap->blocks[at] = block;
}

static void offer(Heap *heap, float score, int64_t block)
{
    int64_t at;
    if (heap->size < heap->room) {
        for (at = heap->size++; at && heap->scores[(at - 1) / 2] > score; at = (at - 1) / 2)
            put(heap, at, heap->scores[(at - 1) / 2], heap->blocks[(at - 1) / 2]);
    } else if (!(score > heap->scores[0])) {
        return;
    } else {
        for (at = 0; 2 * at + 1 < heap->size;) {
            int64_t child = 2 * at + 1;
            if (child + 1 < heap->size && heap->scores[child + 1] < heap->scores[child])
                child++;
            if (heap->scores[child] >= score)
                break;
            put(heap, at, heap->scores[child], heap->blocks[child]);
            at = child;
        }
    }
    put(heap, at, score, block);
}

static float worst(const Heap *heap)
{
    return heap->size < heap->room ? -INFINITY : heap->scores[0];
}

/* The best blocks of one query, truly scored; see best_blocks. */
static void best_of_one(const int32_t *products, const int32_t *fine_products, float fine,
                        const float *scales, int64_t known, float slack, float step, float common,
                        const Rows *vectors, const float *query, int64_t total, float *bounds,
                        float *tops, Heap *likely, Heap *best)
{
    int64_t groups = known / GROUP;
    for (int64_t g = 0; g < groups; g++) {
        float *own = bounds + g * GROUP, scale = scales[g], top = -INFINITY;
        const int32_t *coarse = products + g * GROUP;
        for (int64_t i = 0; i < GROUP; i++)
            own[i] = coarse[i];
        if (fine_products)
            for (int64_t i = 0; i < GROUP; i++)
                own[i] = own[i] * fine + fine_products[g * GROUP + i];
#pragma omp simd reduction(max : top)
        for (int64_t i = 0; i < GROUP; i++) {
            own[i] = (own[i] + slack) * scale;
            top = own[i] > top ? own[i] : top;
        }
        tops[g] = top;
        if (top > worst(likely))
            for (int64_t i = 0; i < GROUP; i++)
                offer(likely, own[i], g * GROUP + i);
    }
    int64_t bytes = vectors->width * (vectors->half ? 2 : 4);
    for (int64_t i = 0; i < likely->size; i++)
        prefetch(row_of(vectors, likely->blocks[i]), bytes);
    for (int64_t i = 0; i < likely->size; i++) {
        int64_t block = likely->blocks[i];
        offer(best, score_of(vectors, block, query), block);
        bounds[block] = NAN; /* not again */
    }
    for (int64_t block = known; block < total; block++)
        offer(best, score_of(vectors, block, query), block);
    int64_t next = -1; /* the row that is being fetched */
    for (int64_t g = 0; g < groups; g++)
        if (tops[g] * step + common >= worst(best))
            for (int64_t block = g * GROUP; block < (g + 1) * GROUP; block++)
                if (bounds[block] * step + common >= worst(best)) {
                    prefetch(row_of(vectors, block), bytes);
                    if (next >= 0)
                        offer(best, score_of(vectors, next, query), next);
                    next = block;
                }
    if (next >= 0)
        offer(best, score_of(vectors, next, query), next);
}

typedef struct {
    int64_t block;
    float score;
} Found;

static int by_block(const void *a, const void *b)
{
    int64_t one = ((const Found *)a)->block, other = ((const Found *)b)->block;
    return (one > other) - (one < other);
}

/* The topk best blocks (queries, topk) of each query by true scores, ascending by number.

   products: (queries, known) a row of `stride` apart, and those of the second part or NULL.
   scales: of groups, one row of `scale_stride` for each vector.
   facts (3, queries): from code_queries, rows `fact_stride` apart.
   vectors: (count, room, width), in bfloat16 where `half`; of the blocks `total` are the query's,
   and `known` of these are sketched.
   Returns 0, or 1 where there is no memory, or facts or scores are not numbers. */
static int best_blocks(const int32_t *products, const int32_t *fine_products, int64_t stride,
                       float fine, const float *scales, int64_t scale_stride, int64_t known,
                       const float *facts, int64_t fact_stride, const void *vectors, int half,
                       int64_t count, int64_t room, const float *queries, int64_t each,
                       int64_t width, int64_t total, int64_t topk, int64_t *blocks, float *scores)
{
    float *scratch = malloc(sizeof(float) * (known + known / GROUP + topk));
    int64_t *numbers = malloc(sizeof(int64_t) * topk);
    Found *found = malloc(sizeof(Found) * topk);
    int failed = !scratch || !numbers || !found;
    for (int64_t x = 0; x < each; x++)
        for (int64_t fact = 0; fact < 3; fact++)
            failed |= !isfinite(facts[fact * fact_stride + x]);
    for (int64_t x = 0; x < each && !failed; x++) {
        int64_t vector = x / (each / count);
        Rows all = {vectors, width, half};
        Rows own = {row_of(&all, vector * room), width, half};
        float *tops = scratch + known;
        Heap likely = {tops + known / GROUP, numbers, 0, topk};
        Heap best = {scores + x * topk, blocks + x * topk, 0, topk};
        best_of_one(products + x * stride, fine_products ? fine_products + x * stride : NULL, fine,
                    scales + vector * scale_stride, known, facts[x],
                    facts[fact_stride + x], facts[2 * fact_stride + x], &own, queries + x * width,
                    total, scratch, tops, &likely, &best);
        failed = best.size < topk;
        for (int64_t i = 0; i < best.size; i++)
            found[i] = (Found){best.blocks[i], best.scores[i]};
        qsort(found, best.size, sizeof(Found), by_block);
        for (int64_t i = 0; i < best.size; i++)
            put(&best, i, found[i].score, found[i].block);
    }
    free(scratch);
    free(numbers);
    free(found);
    return failed;
}

/* Both of the above for a single question: nothing but what is found comes back. */
static int find_blocks(const float *queries, const float *centre, int64_t each, int64_t count,
                       int64_t width, int64_t parts, float fine, float lost, float kept,
                       const int8_t *codes, int64_t known, int threads, const float *scales,
                       int64_t scale_stride, const void *vectors, int half, int64_t room,
                       int64_t total, int64_t topk, int64_t *blocks, float *scores)
{
    int32_t *products = malloc(sizeof(int32_t) * (parts * each * known + 1));
    float *facts = malloc(sizeof(float) * 3 * each);
    int failed = !products || !facts ||
                 ask_sketch(queries, centre, 1, each, count, width, parts, fine, lost, kept, codes,
                            known, threads, products, facts) ||
                 best_blocks(products, parts == 2 ? products + each * known : NULL, known, fine,
                             scales, scale_stride, known, facts, each, vectors, half, count, room,
                             queries, each, width, total, topk, blocks, scores);
    free(products);
    free(facts);
    return failed;
}

/* The same for Python: tensors come as addresses, and are kept alive by the caller. Each returns
   whether it could. */
static int address(PyObject *number, void *pointer)
{
    *(void **)pointer = PyLong_AsVoidPtr(number);
    return !PyErr_Occurred();
}

static PyObject *py_ask(PyObject *module, PyObject *arguments)
{
    float *queries, *centre, *facts, fine, lost, kept;
    int8_t *codes;
    int32_t *products;
    long long questions, each, vectors, width, parts, count;
    int threads, failed;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "O&O&LLLLLfffO&LiO&O&:ask", address, &queries, address,
                          &centre, &questions, &each, &vectors, &width, &parts, &fine, &lost,
                          &kept, address, &codes, &count, &threads, address, &products, address,
                          &facts))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    failed = ask_sketch(queries, centre, questions, each, vectors, width, parts, fine, lost, kept,
                        codes, count, threads, products, facts);
    Py_END_ALLOW_THREADS
    return PyBool_FromLong(!failed);
}

static PyObject *py_best(PyObject *module, PyObject *arguments)
{
    int32_t *products, *fine_products;
    float *scales, *facts, *queries, *scores, fine;
    void *vectors;
    int64_t *blocks;
    long long stride, scale_stride, known, fact_stride, count, room, each, width, total, topk;
    int half, failed;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "O&O&LfO&LLO&LO&pLLO&LLLLO&O&:best", address, &products,
                          address, &fine_products, &stride, &fine, address, &scales, &scale_stride,
                          &known, address, &facts, &fact_stride, address, &vectors, &half, &count,
                          &room, address, &queries, &each, &width, &total, &topk, address, &blocks,
                          address, &scores))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    failed = best_blocks(products, fine_products, stride, fine, scales, scale_stride, known, facts,
                         fact_stride, vectors, half, count, room, queries, each, width, total,
                         topk, blocks, scores);
    Py_END_ALLOW_THREADS
    return PyBool_FromLong(!failed);
}

static PyObject *py_find(PyObject *module, PyObject *arguments)
{
    float *queries, *centre, *scales, *scores, fine, lost, kept;
    int8_t *codes;
    void *vectors;
    int64_t *blocks;
    long long each, count, width, parts, known, scale_stride, room, total, topk;
    int threads, half, failed;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "O&O&LLLLfffO&LiO&LO&pLLLO&O&:find", address, &queries,
                          address, &centre, &each, &count, &width, &parts, &fine, &lost, &kept,
                          address, &codes, &known, &threads, address, &scales, &scale_stride,
                          address, &vectors, &half, &room, &total, &topk, address, &blocks,
                          address, &scores))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    failed = find_blocks(queries, centre, each, count, width, parts, fine, lost, kept, codes,
                         known, threads, scales, scale_stride, vectors, half, room, total, topk,
                         blocks, scores);
    Py_END_ALLOW_THREADS
    return PyBool_FromLong(!failed);
}

static PyMethodDef METHODS[] = {
    {"ask", py_ask, METH_VARARGS, NULL},
    {"best", py_best, METH_VARARGS, NULL},
    {"find", py_find, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

struct PyModuleDef VARIANT = {PyModuleDef_HEAD_INIT, .m_name = NAME, .m_methods = METHODS};
