/* Runge-Kutta steps of the dynamics
 *
 *     f(y) = G4 C4 R G3 C3 R G2 C2 R G1 C1 R G0 y      (G group norm, R ReLU, C 3x3 convolution)
 *
 * and their exact reverse, for one shape fixed at compile time: C channels, H x W pixels, GROUPS groups.
 * Arrays are (samples, H*W, C), channels last, so that one vector holds VL channels of one pixel.
 * Samples never interact, so each thread takes its samples through all stages of a step alone, a few at
 * a time (CHUNK) so that their data stays in its cache.
 *
 * Kept per evaluation: the normalised values x of G0..G4 and 1/standard deviation of each group; the
 * reverse finds everything else from them.
 */
#include <math.h>
#include <stddef.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#if defined(__AVX512F__)
#define VL 16
#define REGISTERS 28 /* accumulators of a tile; the rest hold weights and inputs */
#elif defined(__AVX2__)
#define VL 8
#define REGISTERS 12
#else
#define VL 4
#define REGISTERS 24
#endif

typedef float vec __attribute__((vector_size(VL * 4)));
typedef float mem __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef int mask __attribute__((vector_size(VL * 4)));
#define SELECT(m, a, b) ((vec)(((m) & (mask)(a)) | (~(m) & (mask)(b))))
#define LOAD(p) (*(const mem *)(p))
#define STORE(p, v) (*(mem *)(p) = (v))
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 32")

#define P (H * W)
#define SIZE (P * C)           /* floats of one sample */
#define NORMS 5
#define KEPT (NORMS * (SIZE + GROUPS)) /* floats kept per sample and evaluation */
#define STAGES 7

/* A tile of the convolution: R rows of W pixels by V vectors of output channels, all in registers. */
#define V ((C % (2 * VL) == 0 && 2 * W <= REGISTERS) ? 2 : 1)
#define ROWS (4 * V * W <= REGISTERS ? 4 : 3 * V * W <= REGISTERS ? 3 : 2 * V * W <= REGISTERS ? 2 : 1)
#define LEFT (H % ROWS)        /* rows of the last, smaller tile */
#define BLOCK (V * VL)         /* output channels of a tile */
#define INPUTS 16              /* input channels whose weights stay in the first-level cache meanwhile */
#define TAKEN (V == 1 && VL == 16 ? 16 : 8) /* input channels of a tile of the weight gradient */
#define WEIGHTS (9 * C * C)    /* floats of one convolution */
/* packed weights: [C / BLOCK][C / INPUTS][ky][INPUTS][kx][BLOCK] */

/* Minimal filtering F(4x4, 3x3): 36 products for 16 outputs, where the sum itself takes 144.
 *
 *     output = A' [ (G w G') * (B' input B) ] A        (* element by element, ' transposed)
 *
 * with the points 0, 1, -1, 2, -2, infinity (Winograd, 1980; Lavin and Gray, Fast algorithms for convolutional
 * neural networks, 2016). Rounding errors are about four times those of the sum, a few 1e-6 of f, so the
 * solver asks for it at tolerances far above them only. Transformed data: [DOMAIN][tiles][C], weights:
 * [DOMAIN][C / COLUMNS][C][COLUMNS]. */
#define DOMAIN 36
#define TX ((W + 3) / 4)
#define TILES (TX * ((H + 3) / 4)) /* tiles of 4 x 4 outputs per sample */
#define PV (C % (2 * VL) == 0 ? 2 : 1)      /* vectors of a row of a block of products, and its rows */
#define ROW (VL == 8 ? 6 : 12)
#define COLUMNS (PV * VL)
#define MINIMAL_WEIGHTS (DOMAIN * C * C)
/* floats between one product's tiles of n samples and the next's: a multiple of 4096 would make them share cache sets */
#define PLANE(n) ((size_t)(n) * TILES * C + 16)

/* Parameters: packed forward and backward weights of C1..C4, scales and offsets of G0..G4; if `minimal`, the weights
 * are transformed for minimal filtering, and so are their gradients. */
typedef struct {
    const float *forward, *backward, *scale, *offset;
    float eps;
    int minimal;
} Params;

INLINE void taps(vec acc[ROWS][W][V], const float *in, const float *w, const int from, const int to) {
    for (int i = 0; i < INPUTS; i++, w += 3 * BLOCK) {
        UNROLL for (int kx = 0; kx < 3; kx++) {
            vec wv[V];
            UNROLL for (int v = 0; v < V; v++) wv[v] = LOAD(w + kx * BLOCK + v * VL);
            /* inputs must be loaded again for every kx: kept, they would push accumulators out of registers */
            __asm__ volatile("" : "+r"(in));
            UNROLL for (int r = from; r < to; r++) {
                UNROLL for (int x = 0; x < W; x++) {
                    if (x + kx - 1 < 0 || x + kx - 1 >= W) continue;
                    const float s = in[(r * W + x + kx - 1) * C + i];
                    UNROLL for (int v = 0; v < V; v++) acc[r][x][v] += s * wv[v];
                }
            }
        }
    }
}

INLINE void tile(const float *in, const float *w, float *out, int y, const int rows, int accumulate) {
    vec acc[ROWS][W][V];
    out += (size_t)y * W * C;
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int x = 0; x < W; x++)
            UNROLL for (int v = 0; v < V; v++)
                acc[r][x][v] = accumulate ? (vec)LOAD(out + (r * W + x) * C + v * VL) : (vec){0};
    const float *row = in + (ptrdiff_t)(y - 1) * W * C;
    const int step = 3 * INPUTS * BLOCK;
    if (y > 0) taps(acc, row, w, 0, rows);
    else taps(acc, row, w, 1, rows);
    taps(acc, row + W * C, w + step, 0, rows);
    if (y + rows < H) taps(acc, row + 2 * W * C, w + 2 * step, 0, rows);
    else taps(acc, row + 2 * W * C, w + 2 * step, 0, rows - 1);
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int x = 0; x < W; x++)
            UNROLL for (int v = 0; v < V; v++) STORE(out + (r * W + x) * C + v * VL, acc[r][x][v]);
}

/* out = 3x3 convolution of in with zero padding, for n samples. */
static void convolve(int n, const float *in, const float *w, float *out) {
    for (int o = 0; o < C; o += BLOCK)
        for (int i = 0; i < C; i += INPUTS, w += 9 * INPUTS * BLOCK)
            for (int s = 0; s < n; s++) {
                const float *source = in + (size_t)s * SIZE + i;
                float *target = out + (size_t)s * SIZE + o;
                int y = 0;
                for (; y + ROWS <= H; y += ROWS) tile(source, w, target, y, ROWS, i > 0);
                if (LEFT) tile(source, w, target, y, LEFT ? LEFT : 1, i > 0);
            }
}

/* g += gradient of the weights, [ky][kx][input][output], of n samples with input r and cotangent d. */
static void weight_gradient(int n, const float *r, const float *d, float *g) {
    for (int i = 0; i < C; i += TAKEN)
        for (int o = 0; o < C; o += BLOCK)
            for (int s0 = 0; s0 < n; s0 += 4) /* four samples' channels fit the first-level cache */
                for (int ky = 0; ky < 3; ky++)
                    for (int kx = 0; kx < 3; kx++) {
                        float *target = g + ((ky * 3 + kx) * C + i) * (size_t)C + o;
                        vec acc[TAKEN][V];
                        UNROLL for (int j = 0; j < TAKEN; j++)
                            UNROLL for (int v = 0; v < V; v++) acc[j][v] = LOAD(target + j * C + v * VL);
                        const int x0 = kx == 0, x1 = W - (kx == 2), y0 = ky == 0, y1 = H - (ky == 2);
                        for (int s = s0; s < n && s < s0 + 4; s++)
                            for (int y = y0; y < y1; y++) {
                                const float *in = r + (size_t)s * SIZE + ((y + ky - 1) * W + x0 + kx - 1) * C + i;
                                const float *out = d + (size_t)s * SIZE + (y * W + x0) * C + o;
                                for (int x = x0; x < x1; x++, in += C, out += C) {
                                    vec dv[V];
                                    UNROLL for (int v = 0; v < V; v++) dv[v] = LOAD(out + v * VL);
                                    UNROLL for (int j = 0; j < TAKEN; j++)
                                        UNROLL for (int v = 0; v < V; v++) acc[j][v] += in[j] * dv[v];
                                }
                            }
                        UNROLL for (int j = 0; j < TAKEN; j++)
                            UNROLL for (int v = 0; v < V; v++) STORE(target + j * C + v * VL, acc[j][v]);
                    }
}

/* out (+)= a b for `rows` rows and COLUMNS columns: a(i, j) = a[i * a_row + j * a_step], b(j) = b + j * b_step. */
INLINE void product(const float *a, size_t a_row, size_t a_step, const float *b, size_t b_step, int count, float *out,
                    const int rows, const int accumulate) {
    vec acc[ROW][PV];
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int v = 0; v < PV; v++) acc[i][v] = accumulate ? (vec)LOAD(out + i * C + v * VL) : (vec){0};
    for (int j = 0; j < count; j++, a += a_step, b += b_step) {
        vec bv[PV];
        UNROLL for (int v = 0; v < PV; v++) bv[v] = LOAD(b + v * VL);
        UNROLL for (int i = 0; i < rows; i++) {
            const float s = a[i * a_row];
            UNROLL for (int v = 0; v < PV; v++) acc[i][v] += s * bv[v];
        }
    }
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int v = 0; v < PV; v++) STORE(out + i * C + v * VL, acc[i][v]);
}

/* The same for any number of rows. */
INLINE void products(int rows, const float *a, size_t a_row, size_t a_step, const float *b, size_t b_step, int count,
                     float *out, const int accumulate) {
    int i = 0;
    for (; i + ROW <= rows; i += ROW) product(a + i * a_row, a_row, a_step, b, b_step, count, out + i * C, ROW, accumulate);
#define REST(m) case m: product(a + i * a_row, a_row, a_step, b, b_step, count, out + i * C, m < ROW ? m : ROW, accumulate); break;
    switch (rows - i) { REST(1) REST(2) REST(3) REST(4) REST(5) REST(6) REST(7) REST(8) REST(9) REST(10) REST(11) }
#undef REST
}

/* y = B' x for one column of a tile. */
INLINE void input_column(const vec *x, int step, vec *y, int y_step) {
    const vec x0 = x[0], x1 = x[step], x2 = x[2 * step], x3 = x[3 * step], x4 = x[4 * step], x5 = x[5 * step];
    const vec even = x4 - 4 * x2, odd = x3 - 4 * x1, even2 = x4 - x2, odd2 = 2 * (x3 - x1);
    y[0] = 4 * x0 - 5 * x2 + x4;
    y[y_step] = even + odd;
    y[2 * y_step] = even - odd;
    y[3 * y_step] = even2 + odd2;
    y[4 * y_step] = even2 - odd2;
    y[5 * y_step] = 4 * x1 - 5 * x3 + x5;
}

/* y = A' x */
INLINE void output_column(const vec *x, int step, vec *y, int y_step) {
    const vec x0 = x[0], x1 = x[step], x2 = x[2 * step], x3 = x[3 * step], x4 = x[4 * step], x5 = x[5 * step];
    const vec sum = x1 + x2, difference = x1 - x2, sum2 = x3 + x4, difference2 = x3 - x4;
    y[0] = x0 + sum + sum2;
    y[y_step] = difference + 2 * difference2;
    y[2 * y_step] = sum + 4 * sum2;
    y[3 * y_step] = difference + 8 * difference2 + x5;
}

/* y = A x */
INLINE void cotangent_column(const vec *x, int step, vec *y, int y_step) {
    const vec x0 = x[0], x1 = x[step], x2 = x[2 * step], x3 = x[3 * step];
    const vec even = x0 + x2, odd = x1 + x3, even2 = x0 + 4 * x2, odd2 = 2 * x1 + 8 * x3;
    y[0] = x0;
    y[y_step] = even + odd;
    y[2 * y_step] = even - odd;
    y[3 * y_step] = even2 + odd2;
    y[4 * y_step] = even2 - odd2;
    y[5 * y_step] = x3;
}

/* Tiles of n samples into the domain of the products: B' x B of the 6 x 6 inputs of a tile, or, for a cotangent of
 * the output, A x A' of its 4 x 4 outputs. Pixels outside the picture are zero. */
INLINE void transform(int n, const float *in, float *out, const int cotangent) {
    const int side = cotangent ? 4 : 6, margin = cotangent ? 0 : 1;
    const size_t plane = PLANE(n);
    for (int s = 0; s < n; s++)
        for (int at = 0; at < TILES; at++) {
            const int y0 = 4 * (at / TX) - margin, x0 = 4 * (at % TX) - margin;
            for (int j = 0; j < C; j += VL) {
                vec x[36], half[36], y[36];
                UNROLL for (int a = 0; a < side; a++)
                    UNROLL for (int b = 0; b < side; b++) {
                        const int inside = y0 + a >= 0 && y0 + a < H && x0 + b >= 0 && x0 + b < W;
                        x[a * side + b] =
                            inside ? (vec)LOAD(in + (size_t)s * SIZE + ((y0 + a) * W + x0 + b) * C + j) : (vec){0};
                    }
                UNROLL for (int b = 0; b < side; b++)
                    if (cotangent) cotangent_column(x + b, side, half + b, side);
                    else input_column(x + b, side, half + b, side);
                UNROLL for (int a = 0; a < 6; a++)
                    if (cotangent) cotangent_column(half + a * side, 1, y + a * 6, 1);
                    else input_column(half + a * side, 1, y + a * 6, 1);
                float *target = out + ((size_t)s * TILES + at) * C + j;
                UNROLL for (int k = 0; k < DOMAIN; k++) STORE(target + k * plane, y[k]);
            }
        }
}

/* Outputs of n samples from the domain of the products: A' x A. */
static void transform_back(int n, const float *in, float *out) {
    const size_t plane = PLANE(n);
    for (int s = 0; s < n; s++)
        for (int at = 0; at < TILES; at++) {
            const int y0 = 4 * (at / TX), x0 = 4 * (at % TX);
            for (int j = 0; j < C; j += VL) {
                vec x[36], half[24], y[16];
                const float *source = in + ((size_t)s * TILES + at) * C + j;
                UNROLL for (int k = 0; k < DOMAIN; k++) x[k] = LOAD(source + k * plane);
                UNROLL for (int b = 0; b < 6; b++) output_column(x + b, 6, half + b, 6);
                UNROLL for (int a = 0; a < 4; a++) output_column(half + a * 6, 1, y + a * 4, 1);
                UNROLL for (int a = 0; a < 4; a++)
                    UNROLL for (int b = 0; b < 4; b++)
                        if (y0 + a < H && x0 + b < W)
                            STORE(out + (size_t)s * SIZE + ((y0 + a) * W + x0 + b) * C + j, y[a * 4 + b]);
            }
        }
}

static void transform_input(int n, const float *in, float *out) { transform(n, in, out, 0); }
static void transform_cotangent(int n, const float *in, float *out) { transform(n, in, out, 1); }

/* `convolve` by minimal filtering; tiles: scratch. */
static void convolve_minimal(int n, const float *in, const float *w, float *out, float *tiles) {
    float *after = tiles + DOMAIN * PLANE(n);
    transform_input(n, in, tiles);
    for (int k = 0; k < DOMAIN; k++)
        for (int o = 0; o < C; o += COLUMNS, w += COLUMNS * C) {
            const size_t plane = k * PLANE(n);
            products(n * TILES, tiles + plane, C, 1, w, COLUMNS, C, after + plane + o, 0);
        }
    transform_back(n, after, out);
}

/* `weight_gradient` in the domain of the products: g is [DOMAIN][input][output]. */
static void weight_gradient_minimal(int n, const float *r, const float *d, float *g, float *tiles) {
    float *cotangent = tiles + DOMAIN * PLANE(n);
    transform_input(n, r, tiles);
    transform_cotangent(n, d, cotangent);
    for (int k = 0; k < DOMAIN; k++, g += C * C)
        for (int o = 0; o < C; o += COLUMNS) {
            const size_t plane = k * PLANE(n);
            products(C, tiles + plane, 1, C, cotangent + plane + o, C, n * TILES, g + o, 1);
        }
}

/* Replaces per-channel sums by the mean over the channel's group. */
INLINE void group_mean(float *sum) {
    const int width = C / GROUPS;
    for (int g = 0; g < GROUPS; g++) {
        float total = 0;
        for (int j = 0; j < width; j++) total += sum[g * width + j];
        total /= (float)(P * width);
        for (int j = 0; j < width; j++) sum[g * width + j] = total;
    }
}

INLINE vec total(const vec *part) {
    vec sum = part[0];
    UNROLL for (int x = 1; x < W; x++) sum += part[x];
    return sum;
}

/* x = (c - mean) / sqrt(var + eps) per group, 1 / sqrt(...) to inverse; c and x may be the same. */
static void normalise(int n, const float *c, float *x, float *inverse, float eps) {
    for (int s = 0; s < n; s++, c += SIZE, x += SIZE, inverse += GROUPS) {
        float mean[C], scale[C];
        for (int j = 0; j < C; j += VL) {
            vec part[W];
            UNROLL for (int i = 0; i < W; i++) part[i] = LOAD(c + i * C + j);
            for (int y = 1; y < H; y++) UNROLL for (int i = 0; i < W; i++) part[i] += LOAD(c + (y * W + i) * C + j);
            STORE(mean + j, total(part));
        }
        group_mean(mean);
        for (int j = 0; j < C; j += VL) {
            vec part[W], m = LOAD(mean + j);
            UNROLL for (int i = 0; i < W; i++) part[i] = (vec){0};
            for (int y = 0; y < H; y++)
                UNROLL for (int i = 0; i < W; i++) {
                    const vec u = LOAD(c + (y * W + i) * C + j) - m;
                    part[i] += u * u;
                }
            STORE(scale + j, total(part));
        }
        group_mean(scale);
        for (int g = 0; g < GROUPS; g++) inverse[g] = 1 / sqrtf(scale[g * (C / GROUPS)] + eps);
        for (int i = 0; i < C; i++) scale[i] = inverse[i / (C / GROUPS)];
        for (int j = 0; j < C; j += VL) {
            const vec m = LOAD(mean + j), f = LOAD(scale + j);
            for (int p = 0; p < P; p++) STORE(x + p * C + j, (LOAD(c + p * C + j) - m) * f);
        }
    }
}

/* r = max(0, scale x + offset) */
static void activate(int n, const float *x, float *r, const float *scale, const float *offset) {
    for (int j = 0; j < C; j += VL) {
        const vec a = LOAD(scale + j), b = LOAD(offset + j), zero = {0};
        for (size_t i = j; i < (size_t)n * SIZE; i += C) {
            const vec u = LOAD(x + i) * a + b;
            STORE(r + i, SELECT(u < zero, zero, u)); /* a NaN stays */
        }
    }
}

/* Cotangent of a normalisation's input from that of its output d, or of max(0, output) if relu. */
INLINE void normalise_back(int n, const float *d, float *out, const float *x, const float *inverse,
                           const float *scale, const float *offset, float *scale_bar, float *offset_bar,
                           const int relu) {
    const vec zero = {0};
    for (int s = 0; s < n; s++, d += SIZE, out += SIZE, x += SIZE, inverse += GROUPS) {
        float first[C], second[C];
        for (int j = 0; j < C; j += VL) {
            const vec a = LOAD(scale + j), b = LOAD(offset + j);
            vec part[W], product[W];
            UNROLL for (int i = 0; i < W; i++) part[i] = product[i] = zero;
            for (int y = 0; y < H; y++)
                UNROLL for (int i = 0; i < W; i++) {
                    const size_t at = (y * W + i) * C + j;
                    const vec u = LOAD(x + at);
                    vec v = LOAD(d + at);
                    if (relu) {
                        v = SELECT(u * a + b > zero, v, zero);
                        STORE(out + at, v);
                    }
                    part[i] += v;
                    product[i] += v * u;
                }
            const vec v1 = total(part), v2 = total(product);
            if (scale_bar) {
                STORE(offset_bar + j, LOAD(offset_bar + j) + v1);
                STORE(scale_bar + j, LOAD(scale_bar + j) + v2);
            }
            STORE(first + j, v1 * a);
            STORE(second + j, v2 * a);
        }
        group_mean(first);
        group_mean(second);
        float f[C];
        for (int i = 0; i < C; i++) f[i] = inverse[i / (C / GROUPS)];
        const float *source = relu ? out : d;
        for (int j = 0; j < C; j += VL) {
            const vec a = LOAD(scale + j), m1 = LOAD(first + j), m2 = LOAD(second + j), fv = LOAD(f + j);
            for (int p = 0; p < P; p++) {
                const size_t at = p * C + j;
                STORE(out + at, (LOAD(source + at) * a - m1 - LOAD(x + at) * m2) * fv);
            }
        }
    }
}

/* Where one evaluation's kept values lie: norm l of sample s at x + l * x_step + s * SIZE. */
typedef struct {
    float *x, *inverse;
    size_t x_step, inverse_step;
} Kept;

INLINE Kept kept_at(float *kept, size_t n, size_t stage, size_t s) {
    float *base = kept + stage * n * KEPT;
    return (Kept){base + s * SIZE, base + NORMS * n * SIZE + s * GROUPS, n * SIZE, n * GROUPS};
}

/* k = f(y) for n samples; r and tiles are scratch. */
static void evaluate(int n, const float *y, float *k, const Params *p, Kept kept, float *r, float *tiles) {
    normalise(n, y, kept.x, kept.inverse, p->eps);
    for (int l = 0; l < 4; l++) {
        float *x = kept.x + (l + 1) * kept.x_step;
        activate(n, kept.x + l * kept.x_step, r, p->scale + l * C, p->offset + l * C);
        if (l == 3 && !LAST_NORM) x = k;
        if (p->minimal) convolve_minimal(n, r, p->forward + (size_t)l * MINIMAL_WEIGHTS, x, tiles);
        else convolve(n, r, p->forward + (size_t)l * WEIGHTS, x);
        if (l < 3 || LAST_NORM) normalise(n, x, x, kept.inverse + (l + 1) * kept.inverse_step, p->eps);
    }
    const float *x = LAST_NORM ? kept.x + 4 * kept.x_step : k;
    for (int j = 0; j < C; j += VL) {
        const vec one = (vec){0} + 1, a = LAST_NORM ? (vec)LOAD(p->scale + 4 * C + j) : one;
        const vec b = LAST_NORM ? (vec)LOAD(p->offset + 4 * C + j) : one - one;
        for (size_t i = j; i < (size_t)n * SIZE; i += C) {
            vec u = LOAD(x + i) * a + b;
            if (LEAKY) u -= LOAD(y + i);
            STORE(k + i, u);
        }
    }
}

/* y_bar = k_bar df/dy for n samples; adds to bar (weights, scales, offsets) unless NULL. d, r, tiles: scratch. */
static void vjp(int n, const float *k_bar, float *y_bar, const Params *p, Kept kept, float *bar, float *d, float *r,
                float *tiles) {
    const size_t weights = p->minimal ? MINIMAL_WEIGHTS : WEIGHTS;
    float *scale_bar = bar ? bar + 4 * weights : NULL, *offset_bar = bar ? scale_bar + NORMS * C : NULL;
    const float *source = k_bar;
    if (LAST_NORM) {
        normalise_back(n, k_bar, d, kept.x + 4 * kept.x_step, kept.inverse + 4 * kept.inverse_step, p->scale + 4 * C,
                       p->offset + 4 * C, bar ? scale_bar + 4 * C : NULL, bar ? offset_bar + 4 * C : NULL, 0);
        source = d;
    }
    for (int l = 3; l >= 0; l--) {
        const float *x = kept.x + l * kept.x_step, *a = p->scale + l * C, *b = p->offset + l * C;
        if (bar) {
            activate(n, x, r, a, b);
            if (p->minimal) weight_gradient_minimal(n, r, source, bar + l * weights, tiles);
            else weight_gradient(n, r, source, bar + l * weights);
        }
        if (p->minimal) convolve_minimal(n, source, p->backward + l * weights, y_bar, tiles);
        else convolve(n, source, p->backward + l * weights, y_bar);
        normalise_back(n, y_bar, l ? d : y_bar, x, kept.inverse + l * kept.inverse_step, a, b,
                       bar ? scale_bar + l * C : NULL, bar ? offset_bar + l * C : NULL, 1);
        source = d;
    }
    if (LEAKY)
        for (size_t i = 0; i < (size_t)n * SIZE; i += VL) STORE(y_bar + i, LOAD(y_bar + i) - LOAD(k_bar + i));
}

/* out = y + sum_j w_j v_j over size floats, y may be NULL for zero, terms with w_j = 0 left out. */
static void combine(size_t size, const float *y, int count, const float *w, const float *const *v, float *out) {
    const float *term[STAGES + 1];
    float weight[STAGES + 1];
    int m = 0;
    for (int j = 0; j < count; j++)
        if (w[j] != 0 && v[j]) term[m] = v[j], weight[m++] = w[j];
    for (size_t i = 0; i < size; i += VL) {
        vec u = y ? (vec)LOAD(y + i) : (vec){0};
        switch (m) {
        case 7: u += weight[6] * LOAD(term[6] + i); /* fall through */
        case 6: u += weight[5] * LOAD(term[5] + i); /* fall through */
        case 5: u += weight[4] * LOAD(term[4] + i); /* fall through */
        case 4: u += weight[3] * LOAD(term[3] + i); /* fall through */
        case 3: u += weight[2] * LOAD(term[2] + i); /* fall through */
        case 2: u += weight[1] * LOAD(term[1] + i); /* fall through */
        case 1: u += weight[0] * LOAD(term[0] + i);
        }
        STORE(out + i, u);
    }
}

/* ---- entry points; n samples shared among threads, scratch of nodelib_scratch floats per thread ---- */

#define WORK (CHUNK * (10 * SIZE + GROUPS))
#define SCRATCH (WORK + 2 * DOMAIN * PLANE(CHUNK))
#define BAR(minimal) ((size_t)4 * (minimal ? MINIMAL_WEIGHTS : WEIGHTS) + 2 * NORMS * C) /* floats of a parameter gradient */

size_t nodelib_scratch(void) { return SCRATCH; }
size_t nodelib_kept(void) { return KEPT; }
int nodelib_block(void) { return BLOCK; }
int nodelib_columns(void) { return COLUMNS; }
int nodelib_inputs(void) { return INPUTS; }

#ifdef _OPENMP
#define PARALLEL _Pragma("omp parallel num_threads(threads)")
#define THREAD omp_get_thread_num()
#define TEAM omp_get_num_threads()
#else
#define PARALLEL
#define THREAD 0
#define TEAM 1
#endif
/* A fixed share of the samples per thread. With the sums over threads taken in their order, results repeat to
 * the bit for one number of threads; for another, sums over samples round differently. */
#define FOR_CHUNKS(s, m)                                                                                     \
    const int id = THREAD, team = TEAM, stop = (int)((long)n * (id + 1) / team);                             \
    for (int s = (int)((long)n * id / team), m; m = stop - s < CHUNK ? stop - s : CHUNK, s < stop; s += CHUNK)

/* k = f(y); keeps the evaluation in `kept` unless NULL. */
void nodelib_evaluate(int n, int threads, const Params *p, const float *y, float *k, float *kept, float *scratch) {
    PARALLEL {
        float *work = scratch + THREAD * (size_t)SCRATCH;
        FOR_CHUNKS(s, m) {
            Kept own = kept ? kept_at(kept, n, 0, s) : (Kept){work, work + CHUNK * SIZE, 0, 0};
            evaluate(m, y + (size_t)s * SIZE, k + (size_t)s * SIZE, p, own, work + CHUNK * (SIZE + GROUPS), work + WORK);
        }
    }
}

/* y_bar = k_bar df/dy at a kept evaluation; bars: one parameter gradient per thread, or NULL. */
void nodelib_vjp(int n, int threads, const Params *p, const float *k_bar, float *y_bar, float *kept, float *bars,
                 float *scratch) {
    PARALLEL {
        float *work = scratch + THREAD * (size_t)SCRATCH;
        float *bar = bars ? bars + THREAD * BAR(p->minimal) : NULL;
        FOR_CHUNKS(s, m)
        vjp(m, k_bar + (size_t)s * SIZE, y_bar + (size_t)s * SIZE, p, kept_at(kept, n, 0, s), bar, work,
            work + CHUNK * SIZE, work + WORK);
    }
}

/* One step: k holds stages 2..6, k_next stage 7. ha: h a, 7 x 7; he: h times the error weights.
 * Returns the mean square of error / (atol + rtol max(|y|, |y_next|)). kept: stages 2..7, or NULL. */
double nodelib_step(int n, int threads, const Params *p, const float *y, const float *k1, float *k, float *y_next,
                    float *k_next, float *kept, const float *ha, const float *he, float rtol, float atol,
                    float *scratch) {
    double sums[threads], square = 0; /* added in the threads' order; that of a reduction is open */
    for (int i = 0; i < threads; i++) sums[i] = 0;
    PARALLEL {
        double sum = 0;
        float *work = scratch + THREAD * (size_t)SCRATCH, *stage = work + CHUNK * (SIZE + GROUPS);
        float *error = stage + CHUNK * SIZE;
        FOR_CHUNKS(s, m) {
            const size_t at = (size_t)s * SIZE, size = (size_t)m * SIZE;
            const float *v[STAGES] = {k1 + at};
            for (int i = 1; i < STAGES; i++) {
                float *out = i == 6 ? k_next + at : k + (size_t)(i - 1) * n * SIZE + at;
                float *state = i == 6 ? y_next + at : stage;
                combine(size, y + at, i, ha + i * STAGES, v, state);
                Kept own = kept ? kept_at(kept, n, i - 1, s) : (Kept){work, work + CHUNK * SIZE, 0, 0};
                evaluate(m, state, out, p, own, error, work + WORK);
                v[i] = out;
            }
            combine(size, NULL, STAGES, he, v, error);
            vec squares = {0};
            for (size_t i = 0; i < size; i += VL) {
                vec a = LOAD(y + at + i), b = LOAD(y_next + at + i), zero = {0};
                a = SELECT(a < zero, -a, a);
                b = SELECT(b < zero, -b, b);
                const vec q = LOAD(error + i) / (SELECT(a > b, a, b) * rtol + atol);
                squares += q * q;
                if (i % (64 * VL) == 0 || i + VL >= size) {
                    for (int j = 0; j < VL; j++) sum += squares[j];
                    squares = (vec){0};
                }
            }
        }
        sums[id] = sum;
    }
    for (int i = 0; i < threads; i++) square += sums[i];
    return square / ((double)n * SIZE);
}

/* Reverse of one step. next_bar: cotangent of y_next; last_bar: of stage 7 (the next step's k1); extra:
 * of stages 1..7 from dense outputs, 7 arrays; each NULL for zero. Writes those of y and of k1. */
void nodelib_reverse(int n, int threads, const Params *p, float *kept, const float *next_bar, const float *last_bar,
                     const float *extra, float *y_bar, float *k1_bar, const float *ha, float *bars, float *scratch) {
    PARALLEL {
        float *work = scratch + THREAD * (size_t)SCRATCH;
        float *bar = bars ? bars + THREAD * BAR(p->minimal) : NULL;
        float *stage_bar[STAGES], *k_bar = work, *d = work + CHUNK * SIZE, *r = d + CHUNK * SIZE;
        for (int i = 1; i < STAGES; i++) stage_bar[i] = r + (size_t)i * CHUNK * SIZE;
        float *lambda = r + (size_t)STAGES * CHUNK * SIZE;
        FOR_CHUNKS(s, m) {
            const size_t at = (size_t)s * SIZE, size = (size_t)m * SIZE;
            const float one[STAGES] = {1, 1, 1, 1, 1, 1, 1};
            for (int i = STAGES - 1; i >= 0; i--) {
                const float *add = extra ? extra + (size_t)i * n * SIZE + at : NULL;
                if (i == STAGES - 1) {
                    const float *two[2] = {last_bar ? last_bar + at : NULL, add};
                    if (two[0] || two[1]) {
                        combine(size, NULL, 2, one, two, k_bar);
                        vjp(m, k_bar, stage_bar[i], p, kept_at(kept, n, i - 1, s), bar, d, r, work + WORK);
                        two[0] = next_bar ? next_bar + at : NULL, two[1] = stage_bar[i];
                        combine(size, NULL, 2, one, two, lambda);
                    } else if (next_bar) memcpy(lambda, next_bar + at, size * sizeof(float));
                    else memset(lambda, 0, size * sizeof(float));
                    continue;
                }
                /* the row of b is the last row of a: the weights of y_next */
                const float *sources[STAGES] = {0};
                float weights[STAGES] = {0};
                sources[0] = lambda, weights[0] = ha[6 * STAGES + i];
                for (int j = i + 1; j < STAGES - 1; j++) sources[j - i] = stage_bar[j], weights[j - i] = ha[j * STAGES + i];
                float *target = i ? k_bar : k1_bar + at;
                combine(size, add, STAGES - 1 - i, weights, sources, target);
                if (i) vjp(m, k_bar, stage_bar[i], p, kept_at(kept, n, i - 1, s), bar, d, r, work + WORK);
            }
            const float *sources[STAGES - 2] = {stage_bar[1], stage_bar[2], stage_bar[3], stage_bar[4], stage_bar[5]};
            combine(size, lambda, 5, one, sources, y_bar + at);
        }
    }
}
