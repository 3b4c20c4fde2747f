// Measures the kernels beside OpenBLAS and oneDNN, alternating, one thread. See bench-kernels.sh.
#include "kernels_ref.h"

#include <cblas.h>
#include <dnnl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/// Processor time of this thread, so that other load on the machine counts little.
static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *allocate(size_t bytes) {
    void *p = aligned_alloc(64, (bytes + 127) / 64 * 64);
    if (!p) exit(1);
    memset(p, 0, bytes);
    return p;
}

static float *random_floats(size_t n) {
    float *p = allocate(n * sizeof(float));
    for (size_t i = 0; i < n; i++) p[i] = (float)rand() / (float)RAND_MAX - 0.5f;
    return p;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// MARK: - oneDNN

static dnnl_engine_t engine;
static dnnl_stream_t stream;

static void check(dnnl_status_t status) {
    if (status != dnnl_success) {
        fprintf(stderr, "oneDNN: status %d\n", (int)status);
        exit(1);
    }
}

/// A matmul [m, k] x [k, n] with weights in the layout that oneDNN likes best.
typedef struct matmul {
    dnnl_primitive_t primitive;
    dnnl_exec_arg_t args[3];
} matmul;

static matmul make_matmul(int64_t m, int64_t n, int64_t k, dnnl_data_type_t a_type, dnnl_data_type_t w_type, dnnl_data_type_t c_type) {
    int64_t a_dims[] = {m, k}, w_dims[] = {k, n}, c_dims[] = {m, n};
    dnnl_memory_desc_t a, w, c;
    check(dnnl_memory_desc_init_by_tag(&a, 2, a_dims, a_type, dnnl_ab));
    check(dnnl_memory_desc_init_by_tag(&w, 2, w_dims, w_type, dnnl_format_tag_any));
    check(dnnl_memory_desc_init_by_tag(&c, 2, c_dims, c_type, dnnl_ab));
    dnnl_matmul_desc_t operation;
    check(dnnl_matmul_desc_init(&operation, &a, &w, NULL, &c));
    dnnl_primitive_desc_t description;
    check(dnnl_primitive_desc_create(&description, &operation, NULL, engine, NULL));
    matmul result;
    check(dnnl_primitive_create(&result.primitive, description));
    int names[] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST};
    dnnl_query_t queries[] = {dnnl_query_src_md, dnnl_query_weights_md, dnnl_query_dst_md};
    for (int i = 0; i < 3; i++) {
        const dnnl_memory_desc_t *md = dnnl_primitive_desc_query_md(description, queries[i], 0);
        size_t size = dnnl_memory_desc_get_size(md);
        void *data = allocate(size);
        if (a_type == dnnl_f32) {
            for (size_t j = 0; j < size / 4; j++) ((float *)data)[j] = (float)rand() / (float)RAND_MAX - 0.5f;
        } else {
            for (size_t j = 0; j < size; j++) ((uint8_t *)data)[j] = (uint8_t)rand();
        }
        result.args[i].arg = names[i];
        check(dnnl_memory_create(&result.args[i].memory, md, engine, data));
    }
    return result;
}

static void run_matmul(void *p) {
    matmul *x = p;
    check(dnnl_primitive_execute(x->primitive, stream, 3, x->args));
    check(dnnl_stream_wait(stream));
}

// MARK: - Ours and OpenBLAS

typedef struct problem {
    size_t m, n, k, group;
    float *a, *w, *packed, *c, *bias;
    uint8_t *qa;
    float *a_scale;
    void *packed8;
    trips_epilogue epilogue;
} problem;

static void run_sgemm(void *p) {
    problem *x = p;
    trips_sgemm(x->a, x->k, x->packed, x->n, x->k, x->c, x->n, 0, x->m, 0, x->n, NULL);
}

static void run_sgemm_gelu(void *p) {
    problem *x = p;
    trips_sgemm(x->a, x->k, x->packed, x->n, x->k, x->c, x->n, 0, x->m, 0, x->n, &x->epilogue);
}

static void run_openblas(void *p) {
    problem *x = p;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)x->m, (int)x->n, (int)x->k, 1, x->a, (int)x->k, x->w,
                (int)x->k, 0, x->c, (int)x->n);
}

static void run_igemm(void *p) {
    problem *x = p;
    trips_igemm(x->qa, trips_quantized_row_size(x->k), x->a_scale, x->packed8, x->n, x->k, x->group, x->c, x->n, 0,
                x->m, 0, x->n, NULL);
}

static void run_quantize(void *p) {
    problem *x = p;
    trips_quantize_rows(x->qa, trips_quantized_row_size(x->k), x->a_scale, x->a, x->k, x->k, x->m, NULL);
}

static void run_quantize_igemm_gelu(void *p) {
    problem *x = p;
    run_quantize(p);
    trips_igemm(x->qa, trips_quantized_row_size(x->k), x->a_scale, x->packed8, x->n, x->k, x->group, x->c, x->n, 0,
                x->m, 0, x->n, &x->epilogue);
}

static problem make_problem(size_t m, size_t n, size_t k, size_t group) {
    problem x = {.m = m, .n = n, .k = k, .group = group};
    x.a = random_floats(m * k);
    x.w = random_floats(n * k);
    x.c = random_floats(m * n);
    x.bias = random_floats(n);
    x.packed = allocate(trips_sgemm_pack_size(n, k) * sizeof(float));
    trips_sgemm_pack(x.packed, x.w, k, n, k, 0, n);
    x.qa = allocate(m * trips_quantized_row_size(k));
    x.a_scale = allocate(m * sizeof(float));
    int8_t *w8 = allocate(n * k);
    for (size_t i = 0; i < n * k; i++) w8[i] = (int8_t)(rand() % 255 - 127);
    x.packed8 = allocate(trips_igemm_pack_size(n, k, group));
    float *scales = random_floats(n * trips_group_count(k, group));
    trips_igemm_pack(x.packed8, w8, k, scales, n, k, group, 0, n);
    free(w8);
    free(scales);
    run_quantize(&x);
    x.epilogue = (trips_epilogue){.bias = x.bias, .activation = TRIPS_ACTIVATION_GELU_ERF};
    return x;
}

static void free_problem(problem *x) {
    free(x->a), free(x->w), free(x->c), free(x->bias), free(x->packed), free(x->qa), free(x->a_scale), free(x->packed8);
}

// MARK: - Measuring

typedef struct contender {
    const char *name;
    void (*run)(void *);
    void *argument;
} contender;

/// Median rates (work per second / 1e9) of several contenders that take turns.
static void measure(const contender *contenders, int count, double work, double *rates) {
    enum { ROUNDS = 9 };
    double times[8][ROUNDS];
    int repeats[8];
    for (int i = 0; i < count; i++) {
        contenders[i].run(contenders[i].argument);
        double t = seconds();
        contenders[i].run(contenders[i].argument);
        t = seconds() - t;
        repeats[i] = t > 0.01 ? 1 : (int)(0.01 / (t + 1e-9)) + 1;
    }
    for (int r = 0; r < ROUNDS; r++)
        for (int i = 0; i < count; i++) {
            double t = seconds();
            for (int j = 0; j < repeats[i]; j++) contenders[i].run(contenders[i].argument);
            times[i][r] = (seconds() - t) / repeats[i];
        }
    for (int i = 0; i < count; i++) {
        qsort(times[i], ROUNDS, sizeof(double), ascending);
        rates[i] = work / times[i][ROUNDS / 2] * 1e-9;
    }
}

static const size_t heights[] = {1, 8, 40, 129, 182, 257, 577};
static const size_t shapes[][2] = {{768, 768}, {2304, 768}, {3072, 768}, {768, 3072}};

static void bench_sgemm(void) {
    printf("\nfp32 products, GFLOP/s (one thread)\n%5s %5s %5s %8s %10s %9s %7s %11s %9s\n", "M", "N", "K", "trips",
           "bias+GELU", "OpenBLAS", "oneDNN", "x OpenBLAS", "x oneDNN");
    double logs[2] = {0, 0};
    int cases = 0;
    for (size_t s = 0; s < 4; s++)
        for (size_t i = 0; i < sizeof heights / sizeof *heights; i++) {
            problem x = make_problem(heights[i], shapes[s][0], shapes[s][1], 0);
            matmul d = make_matmul((int64_t)x.m, (int64_t)x.n, (int64_t)x.k, dnnl_f32, dnnl_f32, dnnl_f32);
            contender all[] = {{"trips", run_sgemm, &x}, {"gelu", run_sgemm_gelu, &x}, {"OpenBLAS", run_openblas, &x}, {"oneDNN", run_matmul, &d}};
            double r[4];
            measure(all, 4, 2.0 * (double)(x.m * x.n * x.k), r);
            printf("%5zu %5zu %5zu %8.1f %10.1f %9.1f %7.1f %11.2f %9.2f\n", x.m, x.n, x.k, r[0], r[1], r[2], r[3], r[0] / r[2], r[0] / r[3]);
            logs[0] += log(r[0] / r[2]), logs[1] += log(r[0] / r[3]), cases++;
            free_problem(&x);
        }
    printf("geometric mean: %.2f x OpenBLAS, %.2f x oneDNN\n", exp(logs[0] / cases), exp(logs[1] / cases));
}

static void bench_igemm(void) {
    printf("\nint8 products, GOP/s (one thread; oneDNN u8s8 to s32)\n%5s %5s %5s %8s %6s %6s %20s %7s %9s\n", "M", "N", "K", "trips",
           "G=128", "G=64", "quantize+bias+GELU", "oneDNN", "x oneDNN");
    double logs = 0;
    int cases = 0;
    for (size_t s = 0; s < 4; s++)
        for (size_t i = 0; i < sizeof heights / sizeof *heights; i++) {
            problem x = make_problem(heights[i], shapes[s][0], shapes[s][1], 0);
            problem g = make_problem(heights[i], shapes[s][0], shapes[s][1], 128);
            problem h = make_problem(heights[i], shapes[s][0], shapes[s][1], 64);
            matmul d = make_matmul((int64_t)x.m, (int64_t)x.n, (int64_t)x.k, dnnl_u8, dnnl_s8, dnnl_s32);
            contender all[] = {{"trips", run_igemm, &x}, {"group", run_igemm, &g}, {"group", run_igemm, &h}, {"all", run_quantize_igemm_gelu, &x}, {"oneDNN", run_matmul, &d}};
            double r[5];
            measure(all, 5, 2.0 * (double)(x.m * x.n * x.k), r);
            printf("%5zu %5zu %5zu %8.1f %6.1f %6.1f %20.1f %7.1f %9.2f\n", x.m, x.n, x.k, r[0], r[1], r[2], r[3], r[4], r[0] / r[4]);
            logs += log(r[0] / r[4]), cases++;
            free_problem(&x), free_problem(&g), free_problem(&h);
        }
    printf("geometric mean: %.2f x oneDNN\n", exp(logs / cases));
}

// MARK: - The rest

typedef struct rest {
    size_t rows, n, lq, lk, d;
    float *x, *y, *z, *w, *scratch, *scales;
    uint16_t *h;
    int which;
} rest;

static void run_attention(void *p) {
    rest *x = p;
    trips_attention(x->x, x->d, x->y, x->d, x->w, x->d, x->z, x->d, x->lq, x->lk, x->d, 0.125f, NULL, 0,
                    false, false, x->scratch);
}

static void run_iattention(void *p) {
    rest *x = p;
    trips_byte_rows q = {(uint8_t *)x->x, x->d, x->scales}, k = {(uint8_t *)x->y, x->d, x->scales}, v = {(uint8_t *)x->w, x->d, x->scales};
    trips_iattention(q, k, v, x->z, x->d, x->lq, x->lk, x->d, 0.125f, NULL, 0, false, false, x->scratch);
}

static void run_rest(void *p) {
    rest *x = p;
    size_t n = x->rows * x->n;
    switch (x->which) {
    case 0: trips_layernorm_rows(x->y, x->n, x->x, x->n, x->rows, x->n, x->w, x->w, 1e-6f); break;
    case 1:
        trips_selection_dots(x->scratch, x->w, x->x, x->n, x->rows, 0, x->rows, 12, x->n / 12, x->n / 12);
        trips_selection_scores(x->y, x->scratch, x->rows, 12, 0.125f);
        break;
    case 2: trips_quantize_rows((uint8_t *)x->y, x->n, x->scratch, x->x, x->n, x->n, x->rows, NULL); break;
    case 3: trips_dequantize_rows(x->y, x->n, (int8_t *)x->x, x->n, x->w, x->rows, x->n, 0, NULL); break;
    case 4: trips_sgemm_pack(x->y, x->x, x->n, x->rows, x->n, 0, x->rows); break;
    case 5: trips_igemm_pack(x->y, (int8_t *)x->x, x->n, x->w, x->rows * 4 / 32 * 32, x->n, 0, 0, x->rows * 4 / 32 * 32); break;
    case 6: trips_planes_split((uint8_t *)x->y, x->x, n, 4, true); break;
    case 7: trips_planes_merge(x->y, (uint8_t *)x->x, n, 4, true); break;
    case 8: trips_planes_split((uint8_t *)x->y, x->x, 2 * n, 2, true); break;
    case 9: trips_planes_merge(x->y, (uint8_t *)x->x, 2 * n, 2, true); break;
    case 10: trips_f16_to_f32(x->y, x->h, n); break;
    case 11: trips_bf16_to_f32(x->y, x->h, n); break;
    }
}

static void bench_rest(void) {
    printf("\nattention, one head of 64, fp32 and int8: G operations/s, and beside our fp32 product [257, 768] x [768, 768]\n");
    problem product = make_problem(257, 768, 768, 0);
    size_t lengths[][2] = {{257, 257}, {577, 577}, {182, 182}, {40, 40}, {40, 257}, {40, 577}};
    for (size_t i = 0; i < 6; i++) {
        rest x = {.lq = lengths[i][0], .lk = lengths[i][1], .d = 64};
        x.x = random_floats(x.lq * 64), x.z = random_floats(x.lq * 64), x.y = random_floats(x.lk * 64), x.w = random_floats(x.lk * 64);
        x.scratch = random_floats(trips_attention_scratch(x.lk, 64) + trips_iattention_scratch(x.lk, 64) / 4);
        x.scales = random_floats(x.lq > x.lk ? x.lq : x.lk);
        for (size_t j = 0; j < x.lq || j < x.lk; j++) x.scales[j] = 1 / 128.0f;
        contender all[] = {{"fp32", run_attention, &x}, {"int8", run_iattention, &x}, {"product", run_sgemm, &product}};
        double rate[3], work = 4.0 * (double)(x.lq * x.lk) * 64;
        measure(all, 3, work, rate);
        double reference = rate[2] / work * 2.0 * 257 * 768 * 768;
        printf("%5zu x %5zu", x.lq, x.lk);
        for (int j = 0; j < 2; j++) printf("   %8.1f %8.1f us %6.2f x product", rate[j], work / rate[j] * 1e-3, rate[j] / reference);
        printf("\n");
    }
    static const char *names[] = {"LayerNorm", "selection scores", "quantize rows", "dequantize (out)", "pack fp32", "pack int8",
                                  "split f32", "merge f32",        "split f16",     "merge f16",        "f16 to f32", "bf16 to f32"};
    printf("\nGB/s of fp32 elements (read once), 577 x 768\n");
    rest x = {.rows = 577, .n = 768};
    size_t n = 640 * 768;
    x.x = random_floats(n), x.y = random_floats(n), x.w = random_floats(n), x.h = allocate(n * 2), x.scratch = random_floats(n);
    for (x.which = 0; x.which < (int)(sizeof names / sizeof *names); x.which++) {
        contender c = {"", run_rest, &x};
        double rate;
        measure(&c, 1, 4.0 * (double)(x.rows * x.n), &rate);
        printf("%-18s %8.2f\n", names[x.which], rate);
    }
}

int main(int argc, char **argv) {
    check(dnnl_engine_create(&engine, dnnl_cpu, 0));
    check(dnnl_stream_create(&stream, engine, dnnl_stream_default_flags));
    for (int i = 1; i < argc; i++)
        for (int p = 0; p < TRIPS_PATH_COUNT; p++)
            if (strcmp(argv[i], trips_path_name((trips_path)p)) == 0) trips_kernels_force((trips_path)p);
    printf("path: %s\n", trips_path_name(trips_kernels_path()));
    bool all = true;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "fp32") == 0) bench_sgemm(), all = false;
        if (strcmp(argv[i], "int8") == 0) bench_igemm(), all = false;
        if (strcmp(argv[i], "rest") == 0) bench_rest(), all = false;
    }
    if (all) bench_sgemm(), bench_igemm(), bench_rest();
    return 0;
}
