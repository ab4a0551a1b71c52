/* All sums of a step over layers on the CPU: every tensor is read once before the
 * step and once after it. See native.py, which compiles this file and calls it.
 *
 * Work is cut into chunks of whole output rows, and a chunk into blocks and tiles that
 * stay in the first-level cache while several loops run over them. Sums are in double, where
 * products of floats are exact, so that the part of an update at right angles to the
 * weight comes from one pass without losing digits. Chunks are added up in their
 * order: the result does not depend on the number of threads.
 */
#ifdef __AVX512F__
#include <immintrin.h>
#endif
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { FLOAT32, BFLOAT16, FLOAT64 };

/* Rows of the packed tensor, as measurement.Sum has them. */
enum {
  WEIGHT_GRAD, GRAD_SQ, MOMENTUM_GRAD, MOMENTUM_SQ, GRAD_ABS, WEIGHT_SQ,
  WEIGHT_UPDATE, TURN_SQ, GRAD_UPDATE, MOVED, NONFINITE, WEIGHT_MAX,
  SCALED_GRAD_SQ, WEIGHT_SCALED_GRAD, OUTSIDE, AT_EDGE, SUMS
};

#define BLOCK 1024 /* a page of floats: copied whole, it is not fetched to be overwritten */
#define TILE 256

/* Numbers that are worked on at once; compilers make them fit the machine. */
#define LANES 8
#define PAIR (2 * LANES)
typedef float Float __attribute__((vector_size(4 * LANES)));
typedef double Double __attribute__((vector_size(8 * LANES)));
typedef int64_t Mask __attribute__((vector_size(8 * LANES)));

typedef struct {
  int64_t layer, start, length; /* elements of the layer, whole rows if it has any */
} Chunk;

typedef struct {
  int64_t numel, row_length; /* row_length 0: rows are not measured */
  int64_t row, channel;      /* its first row and channel; channel -1: none */
  int64_t dtype;             /* of the weight, and so of the saved one */
  void *saved;
} Layer;

typedef struct {
  const void *x;  /* NULL where there is none */
  int64_t dtype;
} Input;

typedef struct {
  double limit, edge;          /* of the box; infinite without */
  double correction, eps;      /* of the second moment */
} Setting;

typedef struct {
  double *sums, *rows, *channels;
  int64_t layers, all_rows, all_channels; /* widths */
} Output;

static int64_t size_of(int64_t dtype) {
  return dtype == FLOAT64 ? 8 : dtype == FLOAT32 ? 4 : 2;
}

static double widened(const void *x, int64_t dtype, int64_t i) {
  if (dtype == FLOAT64) return ((const double *)x)[i];
  if (dtype == FLOAT32) return ((const float *)x)[i];
  uint32_t bits = (uint32_t)((const uint16_t *)x)[i] << 16;
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

/* A run as REAL: itself, or widened into a buffer. */
#define DEFINE_LOAD(REAL, OWN)                                                   \
  static const REAL *load_##REAL(const void *x, int64_t dtype, int64_t start,    \
                                 int n, REAL *buffer) {                          \
    if (!x || dtype == OWN) return x ? (const REAL *)x + start : 0;              \
    if (dtype == BFLOAT16) {                                                     \
      const uint16_t *from = (const uint16_t *)x + start;                        \
      for (int i = 0; i < n; i++) {                                              \
        uint32_t bits = (uint32_t)from[i] << 16;                                 \
        float value;                                                             \
        memcpy(&value, &bits, 4);                                                \
        buffer[i] = (REAL)value;                                                 \
      }                                                                          \
    } else {                                                                     \
      for (int i = 0; i < n; i++) buffer[i] = (REAL)widened(x, dtype, start + i); \
    }                                                                            \
    return buffer;                                                               \
  }

static double total(Double x) {
  double sum = 0;
  for (int i = 0; i < LANES; i++) sum += x[i];
  return sum;
}

/* Sums under way, each in lanes of its own; two of them, see below. */
typedef struct {
  Double wg[2], gg[2], size[2], mg[2], mm[2];
} Before;

typedef struct {
  Double ww[2], wd[2], dd[2], gd[2];
} Unit;

typedef struct {
  Double wu[2], uu[2];
} Scaled;

static double both(const Double *sums) { return total(sums[0] + sums[1]); }

static Double magnitude(Double x) { return (Double)((Mask)x & INT64_MAX); }

static Double widen_float(const float *x) {
#ifdef __AVX512F__ /* some compilers would do it by halves */
  return (Double)_mm512_cvtps_pd(_mm256_loadu_ps(x));
#else
  Float few;
  memcpy(&few, x, sizeof few);
  return __builtin_convertvector(few, Double);
#endif
}

static Double widen_double(const double *x) {
  Double few;
  memcpy(&few, x, sizeof few);
  return few;
}

/* Loops over a tile, a whole number of pairs of vectors: two sums of each kind are under
 * way, since a sum has to wait for the one before. */
#define DEFINE_LOOPS(REAL, BITS, SQRT)                                           \
  static void before_tile_##REAL(const REAL *w, const REAL *g, const REAL *m,    \
                                 int n, Before *sums) {                          \
    Before s = *sums;                                                            \
    for (int i = 0; i < n; i += PAIR)                                            \
      for (int k = 0; k < 2; k++) {                                              \
        Double x = widen_##REAL(w + i + k * LANES);                              \
        Double y = widen_##REAL(g + i + k * LANES);                              \
        Double z = widen_##REAL(m + i + k * LANES);                              \
        s.wg[k] += x * y, s.gg[k] += y * y, s.size[k] += magnitude(y);           \
        s.mg[k] += z * y, s.mm[k] += z * z;                                      \
      }                                                                          \
    *sums = s;                                                                   \
  }                                                                              \
                                                                                 \
  static void unit_tile_##REAL(const REAL *old, const REAL *now, const REAL *g,  \
                               int n, Unit *sums) {                              \
    Unit s = *sums;                                                              \
    for (int i = 0; i < n; i += PAIR)                                            \
      for (int k = 0; k < 2; k++) {                                              \
        Double w = widen_##REAL(old + i + k * LANES);                            \
        Double d = widen_##REAL(now + i + k * LANES) - w;                        \
        s.ww[k] += w * w, s.wd[k] += w * d, s.dd[k] += d * d;                    \
        s.gd[k] += widen_##REAL(g + i + k * LANES) * d;                          \
      }                                                                          \
    *sums = s;                                                                   \
  }                                                                              \
                                                                                 \
  static void scaled_tile_##REAL(const REAL *w, const REAL *u, int n,            \
                                 Scaled *sums) {                                 \
    Scaled s = *sums;                                                            \
    for (int i = 0; i < n; i += PAIR)                                            \
      for (int k = 0; k < 2; k++) {                                              \
        Double x = widen_##REAL(w + i + k * LANES);                              \
        Double y = widen_##REAL(u + i + k * LANES);                              \
        s.wu[k] += x * y, s.uu[k] += y * y;                                      \
      }                                                                          \
    *sums = s;                                                                   \
  }                                                                              \
                                                                                 \
  static int moved_##REAL(const REAL *old, const REAL *now, int n) {             \
    int count = 0;                                                               \
    for (int i = 0; i < n; i++) count += now[i] != old[i];                       \
    return count;                                                                \
  }                                                                              \
                                                                                 \
  static void scale_##REAL(const REAL *g, const REAL *v, int n, REAL factor,     \
                           REAL offset, REAL *u) {                               \
    for (int i = 0; i < n; i++) u[i] = g[i] / (SQRT(v[i]) * factor + offset);    \
  }                                                                              \
                                                                                 \
  /* As integers, sizes are in the order of the numbers, and NaN beyond them. */ \
  static REAL largest_##REAL(const REAL *w, int n, REAL most) {                  \
    BITS bits, found;                                                            \
    memcpy(&found, &most, sizeof found);                                         \
    for (int i = 0; i < n; i++) {                                                \
      memcpy(&bits, w + i, sizeof bits);                                         \
      bits = bits << 1 >> 1;                                                     \
      found = bits > found ? bits : found;                                       \
    }                                                                            \
    memcpy(&most, &found, sizeof found);                                         \
    return most;                                                                 \
  }                                                                              \
                                                                                 \
  /* The rest of a run, with zeros that change no sum. */                        \
  static const REAL *padded_##REAL(const REAL *x, int n, REAL *buffer) {         \
    memset(buffer, 0, PAIR * sizeof *buffer);                                    \
    return memcpy(buffer, x, n * sizeof *buffer);                                \
  }                                                                              \
                                                                                 \
  static void before_run_##REAL(const REAL *w, const REAL *g, const REAL *m,     \
                                int n, Before *sums) {                           \
    REAL a[PAIR], b[PAIR], c[PAIR];                                              \
    int whole = n / PAIR * PAIR, rest = n - whole;                               \
    before_tile_##REAL(w, g, m, whole, sums);                                    \
    if (!rest) return;                                                           \
    before_tile_##REAL(padded_##REAL(w + whole, rest, a),                        \
                       padded_##REAL(g + whole, rest, b),                        \
                       padded_##REAL(m + whole, rest, c), PAIR, sums);           \
  }                                                                              \
                                                                                 \
  static void unit_run_##REAL(const REAL *old, const REAL *now, const REAL *g,   \
                              int n, Unit *sums) {                               \
    REAL a[PAIR], b[PAIR], c[PAIR];                                              \
    int whole = n / PAIR * PAIR, rest = n - whole;                               \
    unit_tile_##REAL(old, now, g, whole, sums);                                  \
    if (!rest) return;                                                           \
    unit_tile_##REAL(padded_##REAL(old + whole, rest, a),                        \
                     padded_##REAL(now + whole, rest, b),                        \
                     padded_##REAL(g + whole, rest, c), PAIR, sums);             \
  }                                                                              \
                                                                                 \
  static void scaled_run_##REAL(const REAL *w, const REAL *u, int n,             \
                                Scaled *sums) {                                  \
    REAL a[PAIR], b[PAIR];                                                       \
    int whole = n / PAIR * PAIR, rest = n - whole;                               \
    scaled_tile_##REAL(w, u, whole, sums);                                       \
    if (!rest) return;                                                           \
    scaled_tile_##REAL(padded_##REAL(w + whole, rest, a),                        \
                       padded_##REAL(u + whole, rest, b), PAIR, sums);           \
  }

#define DEFINE_CHUNKS(REAL)                                                      \
  static void before_##REAL(const Layer *layer, const Input *weight,             \
                            const Input *grad, const Input *momentum,            \
                            const Chunk *chunk, double *out) {                   \
    REAL wb[BLOCK], gb[BLOCK], mb[BLOCK];                                           \
    REAL most = 0;                                                               \
    Before sums = {{{0}}};                                                       \
    int64_t size = size_of(layer->dtype);                                        \
    for (int64_t done = 0; done < chunk->length; done += BLOCK) {                 \
      int64_t from = chunk->start + done, left = chunk->length - done;           \
      int n = left < BLOCK ? (int)left : BLOCK;                                    \
      const REAL *w = load_##REAL(weight->x, weight->dtype, from, n, wb);        \
      const REAL *g = load_##REAL(grad->x, grad->dtype, from, n, gb);            \
      const REAL *m = load_##REAL(momentum->x, momentum->dtype, from, n, mb);    \
      before_run_##REAL(w, g ? g : w, m ? m : w, n, &sums);                      \
      most = largest_##REAL(w, n, most);                                         \
      if (weight->x != layer->saved)                                             \
        memcpy((char *)layer->saved + from * size,                               \
               (const char *)weight->x + from * size, n * size);                 \
    }                                                                            \
    out[WEIGHT_MAX] = most;                                                      \
    if (grad->x) {                                                               \
      out[WEIGHT_GRAD] = both(sums.wg), out[GRAD_SQ] = both(sums.gg);            \
      out[GRAD_ABS] = both(sums.size);                                           \
    }                                                                            \
    if (momentum->x) out[MOMENTUM_SQ] = both(sums.mm);                           \
    if (grad->x && momentum->x) out[MOMENTUM_GRAD] = both(sums.mg);              \
  }                                                                              \
                                                                                 \
  /* TURN_SQ is left as sum d^2 until all chunks of the layer are there. */      \
  static void after_##REAL(const Layer *layer, const Input *weight,              \
                           const Input *grad, const Input *second,               \
                           const Setting *setting, const Chunk *chunk,           \
                           const Output *all, double *out) {                     \
    REAL ob[TILE], wb[TILE], gb[TILE], vb[TILE];                                 \
    REAL factor = (REAL)(1 / setting->correction), offset = (REAL)setting->eps;  \
    Rows rows = rows_of(layer, chunk, all);                                      \
    Scaled scaled = {{{0}}};                                                     \
    for (int64_t done = 0; done < chunk->length; done += TILE) {                 \
      int64_t from = chunk->start + done, left = chunk->length - done;           \
      int n = left < TILE ? (int)left : TILE;                                    \
      const REAL *w = load_##REAL(layer->saved, layer->dtype, from, n, ob);      \
      const REAL *now = load_##REAL(weight->x, weight->dtype, from, n, wb);      \
      const REAL *g = load_##REAL(grad->x, grad->dtype, from, n, gb);            \
      const REAL *v = load_##REAL(second->x, second->dtype, from, n, vb);        \
      /* division is slow, and other sums can be taken meanwhile */              \
      if (g && v) scale_##REAL(g, v, n, factor, offset, vb);                     \
      for (int i = 0, span; i < n; i += span) {                                  \
        span = rows.left < n - i ? (int)rows.left : n - i;                       \
        unit_run_##REAL(w + i, now + i, (g ? g : w) + i, span, &rows.unit);      \
        advance(&rows, span);                                                    \
      }                                                                          \
      out[MOVED] += moved_##REAL(w, now, n);                                     \
      if (g && v) scaled_run_##REAL(w, vb, n, &scaled);                          \
    }                                                                            \
    out[WEIGHT_SQ] = both(rows.unit.ww);                                         \
    out[WEIGHT_UPDATE] = both(rows.unit.wd);                                     \
    out[TURN_SQ] = rows.moved + both(rows.unit.dd);                              \
    if (!grad->x) return;                                                        \
    out[GRAD_UPDATE] = both(rows.unit.gd);                                       \
    out[WEIGHT_SCALED_GRAD] = both(scaled.wu);                                   \
    out[SCALED_GRAD_SQ] = both(scaled.uu);                                       \
  }

static double turn_of(double ww, double wd, double dd) {
  if (ww == 0) return dd;
  double turn = dd - wd * wd / ww;
  return turn < 0 ? 0 : turn;
}

/* The output rows of a chunk, one after the other; without, all of it is one. */
typedef struct {
  int64_t length, left, width;
  double *out;
  Unit unit;    /* of this row; g * d of all so far */
  double moved; /* d^2 of the rows before */
} Rows;

static Rows rows_of(const Layer *layer, const Chunk *chunk, const Output *all) {
  Rows rows = {layer->row_length, layer->row_length, all->all_rows};
  if (rows.length)
    rows.out = all->rows + layer->row + chunk->start / layer->row_length;
  else
    rows.left = chunk->length;
  return rows;
}

static void advance(Rows *rows, int span) {
  Unit *unit = &rows->unit;
  rows->left -= span;
  if (rows->left || !rows->length) return;
  double ww = both(unit->ww), wd = both(unit->wd), dd = both(unit->dd);
  rows->out[0] = ww;
  rows->out[rows->width] = wd;
  rows->out[2 * rows->width] = turn_of(ww, wd, dd);
  rows->moved += dd;
  rows->out++, rows->left = rows->length;
  memset(unit, 0, offsetof(Unit, gd));
}

DEFINE_LOAD(float, FLOAT32)
DEFINE_LOAD(double, FLOAT64)
DEFINE_LOOPS(float, uint32_t, sqrtf)
DEFINE_LOOPS(double, uint64_t, sqrt)
DEFINE_CHUNKS(float)
DEFINE_CHUNKS(double)

static void count_far(const Input *weight, const Chunk *chunk, const Setting *setting,
                      double *out) {
  int64_t outside = 0, at_edge = 0;
  for (int64_t i = chunk->start; i < chunk->start + chunk->length; i++) {
    double size = fabs(widened(weight->x, weight->dtype, i));
    outside += size > setting->limit;
    at_edge += size >= setting->edge;
  }
  out[OUTSIDE] = (double)outside;
  out[AT_EDGE] = (double)at_edge;
}

static void keep_channels(const Layer *layer, const Input *weight, const Input *grad,
                          const Output *all) {
  double *out = all->channels + layer->channel;
  int64_t width = all->all_channels;
  for (int64_t i = 0; i < layer->numel; i++) {
    double w = widened(layer->saved, layer->dtype, i);
    out[i] = grad->x ? widened(grad->x, grad->dtype, i) : 0;
    out[width + i] = w;
    out[2 * width + i] = widened(weight->x, weight->dtype, i) - w;
  }
}

/* Adds some of a chunk's sums to those of its layer, which its first chunk begins. */
static void gather(const int *which, int count, const double *chunk, int first,
                   double *sums, int64_t width) {
  for (int i = 0; i < count; i++) {
    double *sum = sums + which[i] * width;
    *sum = first ? chunk[which[i]] : *sum + chunk[which[i]];
  }
}

/* Sums of what is there before the step; keeps the weights, unless they are the kept.
 *
 * partial: SUMS doubles for each chunk. The chunks of a layer follow each other.
 * Returns 0. */
int dynoscope_before(int64_t chunks, const Chunk *chunk, const Layer *layers,
                     const Input *weights, const Input *grads, const Input *momenta,
                     const Setting *settings, const Output *all, double *partial,
                     int threads) {
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
  for (int64_t c = 0; c < chunks; c++) {
    int64_t k = chunk[c].layer;
    double *out = memset(partial + c * SUMS, 0, SUMS * sizeof *partial);
    (layers[k].dtype == FLOAT64 ? before_double : before_float)(
        layers + k, weights + k, grads + k, momenta + k, chunk + c, out);
    if (!(out[WEIGHT_MAX] < settings[k].edge))
      count_far(weights + k, chunk + c, settings + k, out);
  }
  static const int taken[] = {WEIGHT_GRAD, GRAD_SQ, GRAD_ABS, MOMENTUM_SQ,
                              MOMENTUM_GRAD, OUTSIDE, AT_EDGE};
  for (int64_t c = 0; c < chunks; c++) {
    int64_t k = chunk[c].layer;
    int first = c == 0 || chunk[c - 1].layer != k;
    double *out = partial + c * SUMS, *sums = all->sums + k;
    gather(taken, 7, out, first, sums, all->layers);
    double *most = sums + WEIGHT_MAX * all->layers;
    /* written so that a NaN stays */
    if (first || !(out[WEIGHT_MAX] <= *most)) {
      if (first || *most == *most) *most = out[WEIGHT_MAX];
    }
  }
  return 0;
}

/* Sums of what the step has changed; whether weights, gradients and momenta were finite
 * before the step and are after it. */
int dynoscope_after(int64_t chunks, const Chunk *chunk, const Layer *layers,
                    const Input *weights, const Input *grads, const Input *seconds,
                    const Setting *settings, const Output *all, double *partial,
                    int threads) {
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
  for (int64_t c = 0; c < chunks; c++) {
    int64_t k = chunk[c].layer;
    double *out = memset(partial + c * SUMS, 0, SUMS * sizeof *partial);
    (layers[k].dtype == FLOAT64 ? after_double : after_float)(
        layers + k, weights + k, grads + k, seconds + k, settings + k, chunk + c, all,
        out);
    if (layers[k].channel >= 0)
      keep_channels(layers + k, weights + k, grads + k, all);
  }
  static const int taken[] = {GRAD_UPDATE, MOVED, SCALED_GRAD_SQ, WEIGHT_SCALED_GRAD};
  int finite = 1;
  for (int64_t c = 0; c < chunks; c++) {
    int64_t k = chunk[c].layer, width = all->layers;
    int first = c == 0 || chunk[c - 1].layer != k;
    int last = c == chunks - 1 || chunk[c + 1].layer != k;
    double *out = partial + c * SUMS, *sums = all->sums + k;
    gather(taken, 4, out, first, sums, width);
    finite &= isfinite(out[TURN_SQ]) && isfinite(sums[GRAD_SQ * width]) &&
              isfinite(sums[MOMENTUM_SQ * width]);
    if (layers[k].row_length) continue; /* its rows are its units */
    static const int unit[] = {WEIGHT_SQ, WEIGHT_UPDATE, TURN_SQ};
    gather(unit, 3, out, first, sums, width);
    if (last)
      sums[TURN_SQ * width] = turn_of(sums[WEIGHT_SQ * width],
                                      sums[WEIGHT_UPDATE * width], sums[TURN_SQ * width]);
  }
  return finite;
}
