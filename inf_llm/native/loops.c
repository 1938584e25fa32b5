/* The loops of a decode step on a CPU, with sums in float32: attention of one query to keys in several
   places, rotations, copies of rows, and products with int8 rows. Without this file torch computes the same with many small
   operations, each of which costs microseconds before it begins.

   The file is compiled once for each kind of processor. Head vectors are contiguous; all other
   strides count numbers. */

#include "loops.h"

#ifndef VARIANT
#define VARIANT loops_baseline
#define NAME "baseline"
#endif

#define LANES 8
#define MAX_TOGETHER 4 /* int8 rows are multiplied with so many vectors at once */

typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t int_lanes __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int8_t byte_lanes __attribute__((vector_size(LANES), aligned(1)));

#define LOAD(address) (*(const lanes *)(address))
#define STORE(address, value) (*(lanes *)(address) = (value))

static inline float sum_lanes(lanes x)
{
    float sum = 0;
    for (int i = 0; i < LANES; i++)
        sum += x[i];
    return sum;
}

static inline lanes widened(const int8_t *codes)
{
#ifdef AVX2 /* compilers find slower instructions for the general form */
    return (lanes)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)codes)));
#else
    int_lanes whole = __builtin_convertvector(*(const byte_lanes *)codes, int_lanes);
    return __builtin_convertvector(whole, lanes);
#endif
}

static inline float dot(const float *a, const float *b, int64_t n)
{
    lanes even = {0}, odd = {0};
    float rest = 0;
    int64_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        even += LOAD(a + i) * LOAD(b + i);
        odd += LOAD(a + i + LANES) * LOAD(b + i + LANES);
    }
    for (; i < n; i++)
        rest += a[i] * b[i];
    return sum_lanes(even + odd) + rest;
}

/* e^x for x <= 0, to 1e-6, and 0 below 2^-126: 2^n from the exponent's bits times a polynomial. */
static inline lanes exponential(lanes x)
{
    lanes powers = x * 1.44269504f; /* of two */
    int_lanes low = powers < -126.0f;
    lanes least = (lanes){0} - 126.0f;
    powers = (lanes)(((int_lanes)powers & ~low) | ((int_lanes)least & low));
    int_lanes whole = __builtin_convertvector(powers - 0.5f, int_lanes);
    lanes r = (powers - __builtin_convertvector(whole, lanes)) * 0.693147181f, p = r / 5040 + 1.f / 720;
    p = 1.f / 120 + r * p;
    p = 1.f / 24 + r * p;
    p = 1.f / 6 + r * p;
    p = 0.5f + r * p;
    p = 1.f + r * p;
    p = 1.f + r * p;
    return (lanes)((int_lanes)(p * (lanes)((whole + 127) << 23)) & ~low);
}

static void softmax(float *x, int64_t n)
{
    float most = -INFINITY, rest = 0;
    lanes sums = {0};
    int64_t i = 0;
    for (; i < n; i++)
        most = x[i] > most ? x[i] : most;
    for (i = 0; i + LANES <= n; i += LANES) {
        lanes e = exponential(LOAD(x + i) - most);
        STORE(x + i, e);
        sums += e;
    }
    for (; i < n; i++) {
        x[i] = expf(x[i] - most);
        rest += x[i];
    }
    float share = 1 / (sum_lanes(sums) + rest);
    for (i = 0; i < n; i++)
        x[i] *= share;
}

/* Keys and values of G key heads, with the queries of all H heads that are rotated for them. Keys and
   values are float32, or bfloat16 if `half` is set. */
struct piece {
    const float *q;
    const char *k, *v;
    int64_t half, groups, tokens, k_head, k_token, v_head, v_token;
};
#define PIECE_FIELDS 10

struct shape {
    int64_t heads, k_width, v_width, keys; /* keys of all pieces */
};

/* Some consecutive tokens of a key head in float32, with the distance between two tokens. */
struct run {
    const float *x;
    int64_t step, count;
};

#define WIDENED 16 /* tokens in bfloat16 that are converted at once */
#define MAX_WIDTH 1024

/* The run that begins at token t: all tokens that are left, or a few that are converted in `wide`. */
static struct run run_from(const char *x, int64_t half, int64_t step, int64_t width, int64_t t,
                           int64_t tokens, float *wide)
{
    struct run run = {(const float *)x + t * step, step, tokens - t};
    if (half) {
        const uint16_t *from = (const uint16_t *)x + t * step;
        run.count = run.count < WIDENED ? run.count : WIDENED;
        for (int64_t i = 0; i < run.count; i++)
            for (int64_t j = 0; j < width; j++)
                ((uint32_t *)wide)[i * width + j] = (uint32_t)from[i * step + j] << 16;
        run.x = wide, run.step = width;
    }
    return run;
}

/* Scores (H, tokens) of one piece; the rows of `scores` are s->keys apart. */
static void score(const struct piece *p, const struct shape *s, float scale, float *wide, float *scores)
{
    int64_t shared = s->heads / p->groups, size = p->half ? 2 : 4;
    const float *q = p->q;
    for (int64_t g = 0; g < p->groups; g++, q += shared * s->k_width, scores += shared * s->keys) {
        const char *k = p->k + g * p->k_head * size;
        struct run run;
        for (int64_t t = 0; t < p->tokens; t += run.count) {
            run = run_from(k, p->half, p->k_token, s->k_width, t, p->tokens, wide);
            for (int64_t i = 0; i < run.count; i++)
                for (int64_t h = 0; h < shared; h++)
                    scores[h * s->keys + t + i] =
                        scale * dot(q + h * s->k_width, run.x + i * run.step, s->k_width);
        }
    }
}

/* Add the weighted values of a run to outputs (rows, n); rows of `weights` are `keys` apart. */
static void add_run(struct run run, const float *weights, int64_t keys, int64_t rows, int64_t n, float *out)
{
    int64_t t = 0, step = run.step;
    const float *a = run.x;
    for (; t + 4 <= run.count; t += 4, a += 4 * step) /* four tokens for each pass over the output */
        for (int64_t h = 0; h < rows; h++) {
            const float *w = weights + h * keys + t, *b = a + step, *c = b + step, *d = c + step;
            float *o = out + h * n;
            int64_t i = 0;
            for (; i + LANES <= n; i += LANES)
                STORE(o + i, LOAD(o + i) + w[0] * LOAD(a + i) + w[1] * LOAD(b + i) +
                                 w[2] * LOAD(c + i) + w[3] * LOAD(d + i));
            for (; i < n; i++)
                o[i] += w[0] * a[i] + w[1] * b[i] + w[2] * c[i] + w[3] * d[i];
        }
    for (; t < run.count; t++, a += step)
        for (int64_t h = 0; h < rows; h++)
            for (int64_t i = 0; i < n; i++)
                out[h * n + i] += weights[h * keys + t] * a[i];
}

/* Add the weighted values of one piece to the outputs (H, v_width). */
static void add_values(const struct piece *p, const struct shape *s, const float *weights, float *wide,
                       float *out)
{
    int64_t shared = s->heads / p->groups, size = p->half ? 2 : 4, n = s->v_width;
    for (int64_t g = 0; g < p->groups; g++, weights += shared * s->keys, out += shared * n) {
        struct run run;
        for (int64_t t = 0; t < p->tokens; t += run.count) {
            const char *v = p->v + g * p->v_head * size;
            run = run_from(v, p->half, p->v_token, n, t, p->tokens, wide);
            add_run(run, weights + t, s->keys, shared, n, out);
        }
    }
}

/* Weights (H, keys) of all pieces and output (H, v_width). */
static void attend_to(const struct piece *pieces, int64_t count, const struct shape *s, float scale,
                      float *weights, float *out)
{
    float wide[WIDENED * MAX_WIDTH];
    int64_t first = 0;
    for (const struct piece *p = pieces; p < pieces + count; first += p++->tokens)
        score(p, s, scale, wide, weights + first);
    for (int64_t h = 0; h < s->heads; h++)
        softmax(weights + h * s->keys, s->keys);
    memset(out, 0, sizeof(float) * s->heads * s->v_width);
    first = 0;
    for (const struct piece *p = pieces; p < pieces + count; first += p++->tokens)
        add_values(p, s, weights + first, wide, out);
}

/* Products of an int8 row with `count` vectors that follow each other; count is a constant at each
   call, so that the compiler keeps all sums in registers. */
static inline __attribute__((always_inline)) void multiply_row(
    const int8_t *row, const float *x, int64_t m, float *products, const int count)
{
    lanes sums[2 * MAX_TOGETHER] = {{0}};
    int64_t j = 0;
    for (; j + 2 * LANES <= m; j += 2 * LANES) {
        lanes even = widened(row + j), odd = widened(row + j + LANES);
        for (int r = 0; r < count; r++) {
            sums[2 * r] += LOAD(x + r * m + j) * even;
            sums[2 * r + 1] += LOAD(x + r * m + j + LANES) * odd;
        }
    }
    for (int r = 0; r < count; r++) {
        float rest = 0;
        for (int64_t i = j; i < m; i++)
            rest += x[r * m + i] * row[i];
        products[r] = sum_lanes(sums[2 * r] + sums[2 * r + 1]) + rest;
    }
}

static inline void multiply(const int8_t *row, const float *x, int64_t m, float *products, int count)
{
    switch (count) {
    case 1: multiply_row(row, x, m, products, 1); break;
    case 2: multiply_row(row, x, m, products, 2); break;
    case 3: multiply_row(row, x, m, products, 3); break;
    default: multiply_row(row, x, m, products, 4);
    }
}

static void multiply_all(const float *x, int64_t rows, const int8_t *w, const float *scales, int64_t n,
                         int64_t m, float *out)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t r = 0; r < rows; r += MAX_TOGETHER) {
            float products[MAX_TOGETHER];
            int count = rows - r < MAX_TOGETHER ? (int)(rows - r) : MAX_TOGETHER;
            multiply(w + i * m, x + r * m, m, products, count);
            for (int each = 0; each < count; each++)
                out[(r + each) * n + i] = products[each] * scales[i];
        }
}

/* Scores (queries, n) of n blocks: the largest product with one of a block's pages. */
static void score_blocks(const float *q, int64_t queries, const int8_t *pages, const float *steps,
                         int64_t n, int64_t in_block, int64_t width, float *out)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t r = 0; r < queries; r += MAX_TOGETHER) {
            float best[MAX_TOGETHER], products[MAX_TOGETHER];
            int count = queries - r < MAX_TOGETHER ? (int)(queries - r) : MAX_TOGETHER;
            multiply(pages + i * in_block * width, q + r * width, width, best, count);
            for (int64_t page = 1; page < in_block; page++) {
                multiply(pages + (i * in_block + page) * width, q + r * width, width, products, count);
                for (int each = 0; each < count; each++)
                    best[each] = products[each] > best[each] ? products[each] : best[each];
            }
            for (int each = 0; each < count; each++)
                out[(r + each) * n + i] = best[each] * steps[i];
        }
}

/* Rotate the numbers [start, start + 2 * pairs) of a vector; the numbers of a pair are two halves. */
static void rotate_vector(const float *x, const float *cosines, const float *sines, int64_t width,
                          int64_t start, int64_t pairs, float *out)
{
    memcpy(out, x, sizeof(float) * width);
    x += start, out += start;
    for (int64_t i = 0, j = pairs; i < pairs; i++, j++) {
        out[i] = x[i] * cosines[i] + x[j] * sines[i];
        out[j] = x[j] * cosines[j] + x[i] * sines[j];
    }
}

static PyObject *attend(PyObject *self, PyObject *args)
{
    PyObject *numbers;
    Py_ssize_t weights, out;
    struct shape s;
    float scale;
    if (!PyArg_ParseTuple(args, "O!LLLLfnn", &PyTuple_Type, &numbers, &s.heads, &s.k_width, &s.v_width,
                          &s.keys, &scale, &weights, &out))
        return NULL;
    if (s.k_width > MAX_WIDTH || s.v_width > MAX_WIDTH)
        return PyErr_Format(PyExc_ValueError, "heads wider than %d", MAX_WIDTH);
    int64_t size = PyTuple_Size(numbers);
    int64_t *fields = malloc(sizeof(int64_t) * (size + 1));
    if (!fields)
        return PyErr_NoMemory();
    for (int64_t i = 0; i < size; i++)
        fields[i] = PyLong_AsLongLong(PyTuple_GetItem(numbers, i));
    if (!PyErr_Occurred()) {
        Py_BEGIN_ALLOW_THREADS
        attend_to((const struct piece *)fields, size / PIECE_FIELDS, &s, scale, (float *)weights,
                  (float *)out);
        Py_END_ALLOW_THREADS
    }
    free(fields);
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *int8_product(PyObject *self, PyObject *args)
{
    Py_ssize_t x, w, scales, out;
    long long rows, n, m;
    if (!PyArg_ParseTuple(args, "nLnnLLn", &x, &rows, &w, &scales, &n, &m, &out))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    multiply_all((float *)x, rows, (int8_t *)w, (float *)scales, n, m, (float *)out);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyObject *softmax_rows(PyObject *self, PyObject *args)
{
    Py_ssize_t x;
    long long rows, n;
    if (!PyArg_ParseTuple(args, "nLL", &x, &rows, &n))
        return NULL;
    for (int64_t row = 0; row < rows; row++)
        softmax((float *)x + row * n, n);
    Py_RETURN_NONE;
}

static PyObject *rotate(PyObject *self, PyObject *args)
{
    Py_ssize_t x, cosines, sines, out;
    long long rows, heads, tokens, width, start, pairs, steps[3], table_steps[3];
    if (!PyArg_ParseTuple(args, "nnnnLLLLLLLLLLLL", &x, &cosines, &sines, &out, &rows, &heads, &tokens,
                          &width, &start, &pairs, steps, steps + 1, steps + 2, table_steps,
                          table_steps + 1, table_steps + 2))
        return NULL;
    float *to = (float *)out;
    for (int64_t b = 0; b < rows; b++)
        for (int64_t h = 0; h < heads; h++)
            for (int64_t t = 0; t < tokens; t++, to += width) {
                int64_t at = b * table_steps[0] + h * table_steps[1] + t * table_steps[2];
                rotate_vector((float *)x + b * steps[0] + h * steps[1] + t * steps[2],
                              (float *)cosines + at, (float *)sines + at, width, start, pairs, to);
            }
    Py_RETURN_NONE;
}

static PyObject *gather(PyObject *self, PyObject *args)
{
    Py_ssize_t from, numbers, out;
    long long rows, bytes, count, i = 0;
    if (!PyArg_ParseTuple(args, "nLLnLn", &from, &rows, &bytes, &numbers, &count, &out))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    for (const int64_t *row = (int64_t *)numbers; i < count && row[i] >= 0 && row[i] < rows; i++)
        memcpy((char *)out + i * bytes, (char *)from + row[i] * bytes, bytes);
    Py_END_ALLOW_THREADS
    if (i < count)
        return PyErr_Format(PyExc_IndexError, "row %lld where there are %lld",
                            (long long)((int64_t *)numbers)[i], rows);
    Py_RETURN_NONE;
}

static PyObject *page_scores(PyObject *self, PyObject *args)
{
    Py_ssize_t q, pages, steps, out;
    long long heads, queries, n, in_block, width, pages_head, steps_head;
    if (!PyArg_ParseTuple(args, "nnnnLLLLLLL", &q, &pages, &steps, &out, &heads, &queries, &n, &in_block,
                          &width, &pages_head, &steps_head))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    for (int64_t u = 0; u < heads; u++)
        score_blocks((float *)q + u * queries * width, queries, (int8_t *)pages + u * pages_head,
                     (float *)steps + u * steps_head, n, in_block, width,
                     (float *)out + u * queries * n);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyMethodDef FUNCTIONS[] = {
    {"attend", attend, METH_VARARGS, NULL},
    {"gather", gather, METH_VARARGS, NULL},
    {"int8_product", int8_product, METH_VARARGS, NULL},
    {"page_scores", page_scores, METH_VARARGS, NULL},
    {"rotate", rotate, METH_VARARGS, NULL},
    {"softmax", softmax_rows, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

struct PyModuleDef VARIANT = {PyModuleDef_HEAD_INIT, .m_name = NAME, .m_methods = FUNCTIONS};
