/* All sums of a step over layers on the CPU: every tensor is read once before the
 * step and once after it. See native.py, which compiles this file and calls it.
 *
 * Work is cut into chunks of whole output rows, and a chunk into blocks that stay in
 * the first-level cache while several loops run over them. Sums are in double, where
 * products of floats are exact, so that the part of an update at right angles to the
 * weight comes from one pass without losing digits. Chunks are added up in their
 * order: the result does not depend on the number of threads.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

enum { FLOAT32, BFLOAT16, FLOAT64 };

/* Rows of the packed tensor, as measurement.Sum has them. */
enum {
  WEIGHT_GRAD, GRAD_SQ, MOMENTUM_GRAD, MOMENTUM_SQ, GRAD_ABS, WEIGHT_SQ,
  WEIGHT_UPDATE, TURN_SQ, GRAD_UPDATE, MOVED, NONFINITE, WEIGHT_MAX,
  SCALED_GRAD_SQ, WEIGHT_SCALED_GRAD, OUTSIDE, AT_EDGE, SUMS
};

#define BLOCK 1024

/* Numbers that are worked on at once; compilers make them fit the machine. */
#define LANES 8
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

/* A block as REAL: itself, or widened into a buffer. */
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

static Double magnitude(Double x) { return (Double)((Mask)x & INT64_MAX); }

static Double widen_float(const float *x) {
  Float few;
  memcpy(&few, x, sizeof few);
  return __builtin_convertvector(few, Double);
}

static Double widen_double(const double *x) {
  Double few;
  memcpy(&few, x, sizeof few);
  return few;
}

/* Loops over a block, with the rest of it one by one. Two sums of each kind are under
 * way, since a sum has to wait for the one before. */
#define DEFINE_LOOPS(REAL, BITS, SQRT)                                           \
  /* sum a * b, sum b^2, and sum |b| */                                          \
  static void products_##REAL(const REAL *a, const REAL *b, int n, double *ab,   \
                              double *bb, double *size) {                        \
    Double s[2] = {{0}}, t[2] = {{0}}, u[2] = {{0}};                             \
    int i = 0;                                                                   \
    for (; i + 2 * LANES <= n; i += 2 * LANES)                                   \
      for (int k = 0; k < 2; k++) {                                              \
        Double x = widen_##REAL(a + i + k * LANES);                              \
        Double y = widen_##REAL(b + i + k * LANES);                              \
        s[k] += x * y, t[k] += y * y, u[k] += magnitude(y);                      \
      }                                                                          \
    *ab += total(s[0] + s[1]), *bb += total(t[0] + t[1]);                        \
    *size += total(u[0] + u[1]);                                                 \
    for (; i < n; i++) {                                                         \
      double x = a[i], y = b[i];                                                 \
      *ab += x * y, *bb += y * y, *size += fabs(y);                              \
    }                                                                            \
  }                                                                              \
                                                                                 \
  /* The same of w and g, and of g and m but for sum |m|, in one go. */          \
  static void both_##REAL(const REAL *w, const REAL *g, const REAL *m, int n,    \
                          double *out) {                                         \
    Double wg = {0}, gg = {0}, ga = {0}, mg = {0}, mm = {0};                     \
    int i = 0;                                                                   \
    for (; i + LANES <= n; i += LANES) {                                         \
      Double x = widen_##REAL(w + i), y = widen_##REAL(g + i);                   \
      Double z = widen_##REAL(m + i);                                            \
      wg += x * y, gg += y * y, ga += magnitude(y), mg += z * y, mm += z * z;    \
    }                                                                            \
    out[WEIGHT_GRAD] += total(wg), out[GRAD_SQ] += total(gg);                    \
    out[GRAD_ABS] += total(ga), out[MOMENTUM_GRAD] += total(mg);                 \
    out[MOMENTUM_SQ] += total(mm);                                               \
    for (; i < n; i++) {                                                         \
      double x = w[i], y = g[i], z = m[i];                                       \
      out[WEIGHT_GRAD] += x * y, out[GRAD_SQ] += y * y;                          \
      out[GRAD_ABS] += fabs(y), out[MOMENTUM_GRAD] += z * y;                     \
      out[MOMENTUM_SQ] += z * z;                                                 \
    }                                                                            \
  }                                                                              \
                                                                                 \
  /* of a unit with old and new weights: w^2, w * d, d^2, and g * d, added */    \
  static void unit_##REAL(const REAL *old, const REAL *now, const REAL *g,       \
                          int n, double *sums) {                                 \
    Double ww[2] = {{0}}, wd[2] = {{0}}, dd[2] = {{0}}, gd[2] = {{0}};           \
    int i = 0;                                                                   \
    for (; i + 2 * LANES <= n; i += 2 * LANES)                                   \
      for (int k = 0; k < 2; k++) {                                              \
        Double w = widen_##REAL(old + i + k * LANES);                            \
        Double d = widen_##REAL(now + i + k * LANES) - w;                        \
        ww[k] += w * w, wd[k] += w * d, dd[k] += d * d;                          \
        gd[k] += widen_##REAL(g + i + k * LANES) * d;                            \
      }                                                                          \
    sums[0] += total(ww[0] + ww[1]), sums[1] += total(wd[0] + wd[1]);            \
    sums[2] += total(dd[0] + dd[1]), sums[3] += total(gd[0] + gd[1]);            \
    for (; i < n; i++) {                                                         \
      double w = old[i], d = now[i] - w;                                         \
      sums[0] += w * w, sums[1] += w * d, sums[2] += d * d, sums[3] += g[i] * d; \
    }                                                                            \
  }                                                                              \
                                                                                 \
  static int moved_##REAL(const REAL *old, const REAL *now, int n) {             \
    int count = 0;                                                               \
    for (int i = 0; i < n; i++) count += now[i] != old[i];                       \
    return count;                                                                \
  }                                                                              \
                                                                                 \
  static void scale_##REAL(const REAL *g, const REAL *v, int n, double correction, \
                           double eps, REAL *u) {                                \
    REAL factor = (REAL)(1 / correction), offset = (REAL)eps;                    \
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
  }

#define DEFINE_CHUNKS(REAL)                                                      \
  static void before_##REAL(const Layer *layer, const Input *weight,             \
                            const Input *grad, const Input *momentum,            \
                            const Chunk *chunk, double *out) {                   \
    REAL wb[BLOCK], gb[BLOCK], mb[BLOCK];                                        \
    REAL most = 0;                                                               \
    double ignored = 0;                                                          \
    int64_t size = size_of(layer->dtype);                                        \
    for (int64_t done = 0; done < chunk->length; done += BLOCK) {                \
      int64_t from = chunk->start + done, left = chunk->length - done;           \
      int n = left < BLOCK ? (int)left : BLOCK;                                  \
      const REAL *w = load_##REAL(weight->x, weight->dtype, from, n, wb);        \
      const REAL *g = load_##REAL(grad->x, grad->dtype, from, n, gb);            \
      const REAL *m = load_##REAL(momentum->x, momentum->dtype, from, n, mb);    \
      most = largest_##REAL(w, n, most);                                         \
      if (g && m) both_##REAL(w, g, m, n, out);                                  \
      else if (g)                                                                \
        products_##REAL(w, g, n, out + WEIGHT_GRAD, out + GRAD_SQ,               \
                        out + GRAD_ABS);                                         \
      else if (m)                                                                \
        products_##REAL(m, m, n, &ignored, out + MOMENTUM_SQ, &ignored);         \
      if (weight->x != layer->saved)                                             \
        memcpy((char *)layer->saved + from * size,                               \
               (const char *)weight->x + from * size, n * size);                 \
    }                                                                            \
    out[WEIGHT_MAX] = most;                                                      \
  }                                                                              \
                                                                                 \
  /* TURN_SQ is left as sum d^2 until all chunks of the layer are there. */      \
  static void after_##REAL(const Layer *layer, const Input *weight,              \
                           const Input *grad, const Input *second,               \
                           const Setting *setting, const Chunk *chunk,           \
                           const Output *all, double *out) {                     \
    REAL ob[BLOCK], wb[BLOCK], gb[BLOCK], vb[BLOCK];                             \
    Rows rows = rows_of(layer, chunk, all);                                      \
    double ignored = 0;                                                          \
    for (int64_t done = 0; done < chunk->length; done += BLOCK) {                \
      int64_t from = chunk->start + done, left = chunk->length - done;           \
      int n = left < BLOCK ? (int)left : BLOCK;                                  \
      const REAL *w = load_##REAL(layer->saved, layer->dtype, from, n, ob);      \
      const REAL *now = load_##REAL(weight->x, weight->dtype, from, n, wb);      \
      const REAL *g = load_##REAL(grad->x, grad->dtype, from, n, gb);            \
      const REAL *v = load_##REAL(second->x, second->dtype, from, n, vb);        \
      out[MOVED] += moved_##REAL(w, now, n);                                     \
      if (!rows.length) {                                                        \
        unit_##REAL(w, now, g ? g : w, n, rows.sums);                            \
      } else {                                                                   \
        for (int i = 0, span; i < n; i += span) {                                \
          span = rows.left < n - i ? (int)rows.left : n - i;                     \
          unit_##REAL(w + i, now + i, (g ? g : w) + i, span, rows.sums);         \
          advance(&rows, span);                                                  \
        }                                                                        \
      }                                                                          \
      if (g && v) {                                                              \
        scale_##REAL(g, v, n, setting->correction, setting->eps, vb);            \
        products_##REAL(w, vb, n, out + WEIGHT_SCALED_GRAD, out + SCALED_GRAD_SQ, \
                        &ignored);                                               \
      }                                                                          \
    }                                                                            \
    out[WEIGHT_SQ] = rows.sums[0];                                               \
    out[WEIGHT_UPDATE] = rows.sums[1];                                           \
    out[TURN_SQ] = rows.sums[2];                                                 \
    if (grad->x) out[GRAD_UPDATE] = rows.sums[3];                                \
  }

static double turn_of(double ww, double wd, double dd) {
  if (ww == 0) return dd;
  double turn = dd - wd * wd / ww;
  return turn < 0 ? 0 : turn;
}

/* The output rows of a chunk, one after the other. */
typedef struct {
  int64_t length, left, width;
  double *out, sums[4]; /* w^2, w * d, d^2 of this row; g * d of all so far */
} Rows;

static Rows rows_of(const Layer *layer, const Chunk *chunk, const Output *all) {
  Rows rows = {layer->row_length, layer->row_length, all->all_rows, 0, {0}};
  if (rows.length)
    rows.out = all->rows + layer->row + chunk->start / layer->row_length;
  return rows;
}

static void advance(Rows *rows, int span) {
  double *sums = rows->sums;
  rows->left -= span;
  if (rows->left) return;
  rows->out[0] = sums[0];
  rows->out[rows->width] = sums[1];
  rows->out[2 * rows->width] = turn_of(sums[0], sums[1], sums[2]);
  rows->out++, rows->left = rows->length;
  sums[0] = sums[1] = sums[2] = 0;
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
 * partial: SUMS doubles for each chunk. The chunks of a layer follow each other. */
void dynoscope_before(int64_t chunks, const Chunk *chunk, const Layer *layers,
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
}

/* Sums of what the step has changed. */
void dynoscope_after(int64_t chunks, const Chunk *chunk, const Layer *layers,
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
  for (int64_t c = 0; c < chunks; c++) {
    int64_t k = chunk[c].layer, width = all->layers;
    int first = c == 0 || chunk[c - 1].layer != k;
    int last = c == chunks - 1 || chunk[c + 1].layer != k;
    double *out = partial + c * SUMS, *sums = all->sums + k;
    gather(taken, 4, out, first, sums, width);
    if (layers[k].row_length) continue; /* its rows are its units */
    static const int unit[] = {WEIGHT_SQ, WEIGHT_UPDATE, TURN_SQ};
    gather(unit, 3, out, first, sums, width);
    if (last)
      sums[TURN_SQ * width] = turn_of(sums[WEIGHT_SQ * width],
                                      sums[WEIGHT_UPDATE * width], sums[TURN_SQ * width]);
  }
}
