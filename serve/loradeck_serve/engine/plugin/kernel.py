"""A small C kernel for the many small products of a decode step, built on first use where there is a C compiler.

A step of 64 requests has four such products per layer and slot; through torch each costs more for its start than for
its arithmetic. The kernel goes through the rows of a batch once and reads, for each row, its own slot and nothing else.
Without a compiler, or on a machine that the result does not load on, torch does the work.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SOURCE = r"""
#include <stdint.h>
#include <string.h>

typedef float v16 __attribute__((vector_size(64)));
typedef uint32_t u16w __attribute__((vector_size(64)));
typedef int32_t i16w __attribute__((vector_size(64)));
typedef uint16_t h16 __attribute__((vector_size(32)));

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

#define MAX_INPUT 8192
#define MAX_RANK 2048

void add_lora(int64_t half, void *y, int64_t y_stride, const void *x, int64_t x_stride, const int64_t *rows,
              const int64_t *slots, int64_t count, const layer_t *layer) {
    int64_t input = layer->input, columns = layer->columns, rank = layer->rank, all = layer->slices * rank;
#pragma omp parallel for schedule(static) if (count * rank * (input + columns) > 1 << 20)
    for (int64_t i = 0; i < count; i++) {
        float shrunk[MAX_RANK], buffer[MAX_INPUT];
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
"""

FLAGS = ("-O3", "-march=native", "-fopenmp", "-ffp-contract=fast", "-fno-math-errno", "-std=gnu11", "-shared", "-fPIC")
MAX_INPUT = 8192
MAX_RANK = 2048
"""Widest input, and largest sum of ranks over a layer's slices (3 slices of the largest rank, 512, and some more); the
same numbers stand in the source."""

BUILD_SECONDS = 120.0

logger = logging.getLogger(__name__)


class Layer(ctypes.Structure):
    """`layer_t` of the source."""

    _fields_ = (
        ("a", ctypes.c_void_p),
        ("b", ctypes.c_void_p),
        ("input", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("rank", ctypes.c_int64),
        ("slices", ctypes.c_int64),
        ("starts", ctypes.c_void_p),
    )


class Kernel:
    """The loaded kernel."""

    def __init__(self, library: Path) -> None:
        """Load it. Raises OSError if this machine cannot."""
        self._function: Any = ctypes.CDLL(str(library)).add_lora
        word, pointer = ctypes.c_int64, ctypes.c_void_p
        self._function.argtypes = (word, pointer, word, pointer, word, pointer, pointer, word, pointer)
        self._function.restype = None

    def add(self, y: Tensor, x: Tensor, rows: Tensor, slots: Tensor, layer: int) -> None:
        """Add x A^T B^T to rows `rows` of `y` [n, columns] in place, row i with slot `slots`[i] (both int64).

        `y` and `x` are both float32 or both bfloat16, with neighbouring columns next to each other; `layer` is the
        address of a `Layer` with float32 matrices.
        """
        self._function(
            x.dtype == torch.bfloat16,
            y.data_ptr(),
            y.stride(0),
            x.data_ptr(),
            x.stride(0),
            rows.data_ptr(),
            slots.data_ptr(),
            len(rows),
            layer,
        )


@lru_cache(maxsize=1)
def load_kernel() -> Kernel | None:
    """The kernel, built for this machine if it was not yet, or None if it cannot be had."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if platform.system() != "Linux" or not compiler or os.environ.get("LORADECK_NO_KERNEL"):
        logger.info("no C compiler: adapter operations run on torch")
        return None
    try:
        return Kernel(_build(compiler))
    except (OSError, subprocess.SubprocessError) as error:
        logger.warning("the adapter kernel could not be built, torch is used instead: %s", error)
        return None


def _build(compiler: str) -> Path:
    """The shared library, kept per source, flags, compiler and processor."""
    identity = "\0".join((SOURCE, *FLAGS, compiler, platform.machine(), _processor()))
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "loradeck" / "kernels"
    library = folder / f"lora-{hashlib.sha256(identity.encode()).hexdigest()[:24]}.so"
    if library.exists():
        return library
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        source, target = Path(work) / "lora.c", Path(work) / "lora.so"
        source.write_text(SOURCE)
        subprocess.run(
            [compiler, *FLAGS, str(source), "-o", str(target)], check=True, capture_output=True, timeout=BUILD_SECONDS
        )
        # Two engines may build at once: each moves a whole file into place.
        target.replace(library)
    return library


def _processor() -> str:
    """The processor's features, which `-march=native` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
