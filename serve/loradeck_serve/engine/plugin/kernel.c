/* The adapters' part of a linear layer: y += x A^T B^T, each row with its own slot. Built by kernel.py. */

#include <stdint.h>
#include <string.h>

typedef float v16 __attribute__((vector_size(64)));
typedef uint32_t u16w __attribute__((vector_size(64)));
typedef int32_t i16w __attribute__((vector_size(64)));
typedef uint16_t h16 __attribute__((vector_size(32)));

/* One batch: which of its rows belong to which slot. */
typedef struct {
    const int64_t *rows;   /* [count], by slot */
    const int64_t *slots;  /* [count]: slot of each of them */
    const int64_t *blocks; /* [block_count + 1]: first of rows of each block, at most 16 of one slot, and the end */
    int64_t count, block_count;
} batch_t;

/* A layer for products in float32. */
typedef struct {
    const float *a;        /* [slots, slices * rank, input] */
    const float *b;        /* [slots, slices * rank, columns] */
    int64_t input, columns, rank, slices;
    const int64_t *starts; /* [slices + 1]: first column of each slice, and the end */
} layer_t;

static inline v16 load(const float *p) { v16 v; memcpy(&v, p, 64); return v; }
static inline void store(float *p, v16 v) { memcpy(p, &v, 64); }

static inline v16 widen(const uint16_t *p) {
    h16 h;
    memcpy(&h, p, 32);
    u16w w = __builtin_convertvector(h, u16w) << 16;
    v16 v;
    memcpy(&v, &w, 64);
    return v;
}

/* Round to nearest even; NaN stays NaN. */
static inline void narrow(uint16_t *p, v16 v) {
    u16w w;
    memcpy(&w, &v, 64);
    u16w rounded = (w + 0x7fff + ((w >> 16) & 1)) >> 16;
    u16w nan = (u16w)((i16w)(w & 0x7fffffff) > 0x7f800000);
    u16w result = (rounded & ~nan) | (((w >> 16) | 0x40) & nan);
    h16 h = __builtin_convertvector(result, h16);
    memcpy(p, &h, 32);
}

static inline float widen1(uint16_t h) {
    uint32_t w = (uint32_t)h << 16;
    float f;
    memcpy(&f, &w, 4);
    return f;
}

static inline uint16_t narrow1(float f) {
    uint32_t w;
    memcpy(&w, &f, 4);
    if ((w & 0x7fffffff) > 0x7f800000) return (uint16_t)((w >> 16) | 0x40);
    return (uint16_t)((w + 0x7fff + ((w >> 16) & 1)) >> 16);
}

static inline float sum(v16 v) {
    float total = 0;
    for (int i = 0; i < 16; i++) total += v[i];
    return total;
}

/* shrunk[j] = a[j] . x, for all rows of a */
static void shrink(float *shrunk, const float *x, const float *a, int64_t count, int64_t input) {
    int64_t whole = input & ~15, j = 0;
    for (; j + 4 <= count; j += 4) {
        const float *a0 = a + j * input, *a1 = a0 + input, *a2 = a1 + input, *a3 = a2 + input;
        v16 s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
        for (int64_t k = 0; k < whole; k += 16) {
            v16 v = load(x + k);
            s0 += v * load(a0 + k);
            s1 += v * load(a1 + k);
            s2 += v * load(a2 + k);
            s3 += v * load(a3 + k);
        }
        float t0 = sum(s0), t1 = sum(s1), t2 = sum(s2), t3 = sum(s3);
        for (int64_t k = whole; k < input; k++) {
            t0 += x[k] * a0[k];
            t1 += x[k] * a1[k];
            t2 += x[k] * a2[k];
            t3 += x[k] * a3[k];
        }
        shrunk[j] = t0;
        shrunk[j + 1] = t1;
        shrunk[j + 2] = t2;
        shrunk[j + 3] = t3;
    }
    for (; j < count; j++) {
        float t = 0;
        for (int64_t k = 0; k < input; k++) t += x[k] * a[j * input + k];
        shrunk[j] = t;
    }
}

#define EXPAND(NAME, TYPE, LOAD, STORE, LOAD1, STORE1)                                                      \
    static void NAME(TYPE *y, const float *shrunk, const float *b, int64_t rank, int64_t columns,           \
                     int64_t first, int64_t last) {                                                         \
        int64_t c = first;                                                                                  \
        for (; c + 64 <= last; c += 64) {                                                                   \
            v16 s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};                                                     \
            for (int64_t j = 0; j < rank; j++) {                                                            \
                const float *row = b + j * columns + c;                                                     \
                float t = shrunk[j];                                                                        \
                s0 += t * load(row);                                                                        \
                s1 += t * load(row + 16);                                                                   \
                s2 += t * load(row + 32);                                                                   \
                s3 += t * load(row + 48);                                                                   \
            }                                                                                               \
            STORE(y + c, LOAD(y + c) + s0);                                                                 \
            STORE(y + c + 16, LOAD(y + c + 16) + s1);                                                       \
            STORE(y + c + 32, LOAD(y + c + 32) + s2);                                                       \
            STORE(y + c + 48, LOAD(y + c + 48) + s3);                                                       \
        }                                                                                                   \
        for (; c < last; c++) {                                                                             \
            float s = 0;                                                                                    \
            for (int64_t j = 0; j < rank; j++) s += shrunk[j] * b[j * columns + c];                         \
            y[c] = STORE1(LOAD1(y[c]) + s);                                                                 \
        }                                                                                                   \
    }

#define SAME(value) (value)
EXPAND(expand_float, float, load, store, SAME, SAME)
EXPAND(expand_half, uint16_t, widen, narrow, widen1, narrow1)

void add_lora(int64_t half, void *y, int64_t y_stride, const void *x, int64_t x_stride, const batch_t *batch,
              const layer_t *layer) {
    const int64_t *rows = batch->rows, *slots = batch->slots;
    int64_t count = batch->count;
    int64_t input = layer->input, columns = layer->columns, rank = layer->rank, all = layer->slices * rank;
#pragma omp parallel for schedule(static) if (count * rank * (input + columns) > 1 << 20)
    for (int64_t i = 0; i < count; i++) {
        float shrunk[all], buffer[half ? input : 1];
        const float *own;
        if (half) {
            const uint16_t *from = (const uint16_t *)x + rows[i] * x_stride;
            int64_t k = 0;
            for (; k + 16 <= input; k += 16) store(buffer + k, widen(from + k));
            for (; k < input; k++) buffer[k] = widen1(from[k]);
            own = buffer;
        } else {
            own = (const float *)x + rows[i] * x_stride;
        }
        shrink(shrunk, own, layer->a + slots[i] * all * input, all, input);
        const float *b = layer->b + slots[i] * all * columns;
        for (int64_t s = 0; s < layer->slices; s++) {
            if (half)
                expand_half((uint16_t *)y + rows[i] * y_stride, shrunk + s * rank, b + s * rank * columns, rank,
                            columns, layer->starts[s], layer->starts[s + 1]);
            else
                expand_float((float *)y + rows[i] * y_stride, shrunk + s * rank, b + s * rank * columns, rank,
                             columns, layer->starts[s], layer->starts[s + 1]);
        }
    }
}

/* The same with the matrix unit (AMX), for bfloat16: 16 rows of one slot at a time. */
#if defined(__AMX_BF16__) && defined(__AVX512BF16__)
#include <immintrin.h>

#define BLOCK 16

/* A layer in tiles: pairs of neighbouring rows of a factor lie next to each other, 16 columns wide. */
typedef struct {
    const uint16_t *const *a; /* per slot [outputs / 16, inner / 2, 16, 2]; outputs: slices x rank, rounded up to 16s */
    const uint16_t *const *b; /* per slot, slice after slice [width / 16, rank / 2, 16, 2]; width rounded up to 16s */
    const int64_t *ranks;     /* per slot: even, and above 32 a multiple of it; zeros stand behind the adapter's own */
    const int64_t *starts;    /* [slices + 1]: first column of each slice, and the end */
    int64_t input, inner, slices; /* inner: input rounded up to 32s */
} tiles_t;

typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t column_bytes[16];
    uint8_t rows[16];
} __attribute__((aligned(64))) tile_config_t;

/* Tiles 0 to 3 sum up; 4 and 5 are the factors of the first product, 6 and 7 those of the second. */
static void configure(int64_t chunk) {
    tile_config_t config;
    memset(&config, 0, sizeof config);
    config.palette = 1;
    for (int tile = 0; tile < 8; tile++) {
        config.rows[tile] = BLOCK;
        config.column_bytes[tile] = 64;
    }
    config.column_bytes[6] = chunk * 2;
    config.rows[7] = chunk / 2;
    _tile_loadconfig(&config);
}

static inline int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

/* shrunk[m][j] = x[m] . a[j] for 16 rows, in bfloat16 */
static void shrink_tiles(uint16_t *shrunk, int64_t outputs, const uint16_t *x, int64_t stride, const uint16_t *a,
                         int64_t inner) {
    float sums[2][BLOCK][16] __attribute__((aligned(64)));
    for (int64_t j = 0; j < outputs; j += 32) {
        int two = j + 16 < outputs;
        const uint16_t *first = a + j * inner, *second = first + 16 * inner;
        _tile_zero(0);
        _tile_zero(1);
        for (int64_t k = 0; k < inner; k += 32) {
            _tile_loadd(4, x + k, stride * 2);
            _tile_loadd(5, first + k * 16, 64);
            _tile_dpbf16ps(0, 4, 5);
            if (two) {
                _tile_loadd(5, second + k * 16, 64);
                _tile_dpbf16ps(1, 4, 5);
            }
        }
        _tile_stored(0, sums[0], 64);
        if (two) _tile_stored(1, sums[1], 64);
        for (int part = 0; part <= two; part++)
            for (int m = 0; m < BLOCK; m++) {
                __m256bh narrowed = _mm512_cvtneps_pbh(_mm512_load_ps(sums[part][m]));
                memcpy(shrunk + m * outputs + j + 16 * part, &narrowed, 32);
            }
    }
}

static inline void add_16(uint16_t *y, const float *change) {
    __m256bh narrowed = _mm512_cvtneps_pbh(_mm512_add_ps((__m512)widen(y), _mm512_load_ps(change)));
    memcpy(y, &narrowed, 32);
}

#define EXPAND_TILE(TILE)                                                                                   \
    {                                                                                                       \
        _tile_zero(TILE);                                                                                   \
        for (int64_t k = 0; k < rank; k += chunk) {                                                         \
            if (rank != chunk) _tile_loadd(6, shrunk + k, outputs * 2);                                     \
            _tile_loadd(7, b + (c + TILE * 16) * rank + k * 16, 64);                                        \
            _tile_dpbf16ps(TILE, 6, 7);                                                                     \
        }                                                                                                   \
        _tile_stored(TILE, sums[TILE], 64);                                                                 \
    }

/* y[rows[m]][c] += shrunk[m] . b[c] for up to 16 rows and the columns of one slice */
static void expand_tiles(uint16_t *y, int64_t y_stride, const int64_t *rows, int64_t count, const uint16_t *shrunk,
                         int64_t outputs, const uint16_t *b, int64_t rank, int64_t chunk, int64_t columns) {
    float sums[4][BLOCK][16] __attribute__((aligned(64)));
    if (rank == chunk) _tile_loadd(6, shrunk, outputs * 2);
    for (int64_t c = 0; c < columns; c += 64) {
        int64_t left = columns - c;
        EXPAND_TILE(0)
        if (left > 16) EXPAND_TILE(1)
        if (left > 32) EXPAND_TILE(2)
        if (left > 48) EXPAND_TILE(3)
        for (int64_t m = 0; m < count; m++) {
            uint16_t *own = y + rows[m] * y_stride + c;
            for (int64_t part = 0; part < 4 && part * 16 < left; part++) {
                if (left - part * 16 >= 16)
                    add_16(own + part * 16, sums[part][m]);
                else
                    for (int64_t i = 0; i < left - part * 16; i++)
                        own[part * 16 + i] = narrow1(widen1(own[part * 16 + i]) + sums[part][m][i]);
            }
        }
    }
}

void add_lora_tiles(uint16_t *y, int64_t y_stride, const uint16_t *x, int64_t x_stride, const batch_t *batch,
                    const tiles_t *layer) {
#pragma omp parallel if (batch->block_count > 16)
    {
        /* Others use the tiles as well and may rely on their own shape of them. */
        tile_config_t before;
        _tile_storeconfig(&before);
        int64_t inner = layer->inner, configured = 0;
        uint16_t *gathered = __builtin_alloca_with_align(BLOCK * inner * 2, 512);
        memset(gathered, 0, BLOCK * inner * 2);
#pragma omp for schedule(static)
        for (int64_t block = 0; block < batch->block_count; block++) {
            const int64_t *rows = batch->rows + batch->blocks[block];
            int64_t count = batch->blocks[block + 1] - batch->blocks[block], slot = batch->slots[batch->blocks[block]];
            int64_t rank = layer->ranks[slot], chunk = rank < 32 ? rank : 32;
            int64_t outputs = round_up(layer->slices * rank, 16);
            uint16_t shrunk[BLOCK * outputs] __attribute__((aligned(64)));
            if (chunk != configured) configure(configured = chunk);
            const uint16_t *own = x + rows[0] * x_stride;
            int64_t stride = x_stride;
            if (count < BLOCK || rows[count - 1] - rows[0] != count - 1 || inner != layer->input) {
                for (int64_t m = 0; m < count; m++)
                    memcpy(gathered + m * inner, x + rows[m] * x_stride, layer->input * 2);
                own = gathered;
                stride = inner;
            }
            shrink_tiles(shrunk, outputs, own, stride, layer->a[slot], inner);
            const uint16_t *b = layer->b[slot];
            for (int64_t s = 0; s < layer->slices; s++) {
                int64_t width = layer->starts[s + 1] - layer->starts[s];
                expand_tiles(y + layer->starts[s], y_stride, rows, count, shrunk + s * rank, outputs, b, rank, chunk,
                             width);
                b += round_up(width, 16) * rank;
            }
        }
        if (before.palette)
            _tile_loadconfig(&before);
        else
            _tile_release();
    }
}
#endif
