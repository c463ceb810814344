// test_attention.cu: the attention kernels of llmc/cuda against the double reference of ops_reference.h, over shapes at
// and around the borders of their tiles, fp32 and bf16, packed pages, queries of outputs only, KV caches, decoding.
//     test_attention [short]    short: few shapes, for the slow builds and the mutations
//
// Tolerances are those of test_ops.c: a few fp32 roundings of the sum of absolute values of what was added up; in bf16
// half a unit in the last place of the result, and of each P or dS that enters a product as bf16.
#include <math.h>
#include <stdarg.h>
#include <string>
#include <vector>

#include "dev/cudasim/tests/device.h"
#include "llmc/cuda/cuda.h"
#include "test/check.h"
#include "test/ops_reference.h"

// ---- as much of a backend as attention needs ----
static char where[200]; // printed with every failure
void cuda_fatal(const char *file, int line, const char *call, const char *text) {
    printf("%s:%d: %s: %s (%s)\n", file, line, call, text, where);
    exit(1);
}
void *cuda_scratch(Backend *b, size_t bytes, const char *) {
    CHECK(bytes <= cuda_state(b)->scratch_bytes, "%s: %zu bytes of scratch are wanted", where, bytes);
    return cuda_state(b)->scratch;
}

void cuda_hold_back(const Backend *) {}

typedef std::vector<double> Doubles;
static double uniform() { // [-1, 1)
    static uint64_t state = 88172645463325252ull;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (double)(int64_t)state / 9223372036854775808.0;
}

static float to_float(float x) { return x; }
static float to_float(bf16 x) { return __bfloat162float(x); }
static void from_double(float &to, double x) { to = (float)x; }
static void from_double(bf16 &to, double x) { to = __float2bfloat16((float)x); }

// An array of elements whose first lies `offset` elements behind an allocation's begin.
template <class T> struct Elements {
    Device<T> device;
    int offset;
    Elements(size_t n, int off) : device(std::vector<T>(n + off, unset())), offset(off) {}
    Elements(Doubles &values, int off) : Elements(values.size(), off) { put(values); }
    static T unset() {
        T x;
        from_double(x, NAN);
        return x;
    }
    T *p() const { return device.p + offset; }
    void put(Doubles &values) { // rounds the values to what was stored
        std::vector<T> h(values.size());
        for (size_t i = 0; i < h.size(); i++) {
            from_double(h[i], values[i]);
            values[i] = (double)to_float(h[i]);
        }
        CUDA_OK(cudaMemcpy(p(), h.data(), h.size() * sizeof(T), cudaMemcpyHostToDevice));
    }
    Doubles get() const {
        std::vector<T> h = device.host();
        Doubles values(h.size() - offset);
        for (size_t i = 0; i < values.size(); i++) values[i] = (double)to_float(h[i + offset]);
        return values;
    }
};

struct Reference {
    Doubles value, mag, rounded;
    explicit Reference(size_t n) : value(n), mag(n), rounded(n) {}
};

// NaN in the reference: must still hold the NaN that the array was filled with.
template <class T>
static void compare(const char *what, const Elements<T> &found, const Reference &ref, double terms, bool rounds) {
    const Doubles got = found.get();
    double worst = 0;
    size_t at = 0;
    for (size_t i = 0; i < got.size(); i++) {
        double error = 0;
        if (std::isnan(ref.value[i])) error = std::isnan(got[i]) ? 0 : INFINITY;
        else {
            double tolerance = ldexp(4 + sqrt(terms), -23) * ref.mag[i] + 1e-37;
            if (rounds) tolerance += ldexp(1.001, -8) * ref.rounded[i];
            if (sizeof(T) == 2) tolerance += ldexp(1.001, -8) * (fabs(ref.value[i]) + tolerance);
            error = fabs(got[i] - ref.value[i]) / tolerance;
        }
        if (!(error <= worst)) {
            worst = error;
            at = i;
            if (error != error) break;
        }
    }
    CHECK(worst <= 1, "%s: %s[%zu]: expected %.9g, found %.9g, %.2f times the tolerance", where, what, at,
          ref.value[at], got[at], worst);
}

// ---- cases ----
struct Pages {
    const char *name;
    std::vector<int> q, k;
    int extra; // unused key rows before, between and after the pages, as a KV cache has them
};
struct Heads {
    int NH, KV, HS;
};
enum Layout { FUSED, SEPARATE, MISALIGNED }; // q, k, v in one matrix; apart, with longer rows; not at 16 bytes

struct Places { // of the pages' rows
    std::vector<int> cu_q, begin, end;
    int max_q = 0, max_k = 0, Tk;
    explicit Places(const Pages &pages) : cu_q{0}, Tk(pages.extra) {
        for (size_t i = 0; i < pages.q.size(); i++) {
            cu_q.push_back(cu_q.back() + pages.q[i]);
            begin.push_back(Tk);
            end.push_back(Tk + pages.k[i]);
            Tk = end.back() + pages.extra;
            max_q = std::max(max_q, pages.q[i]);
            max_k = std::max(max_k, pages.k[i]);
        }
    }
};

template <class T> static void attention_case(const Pages &pages, Heads heads, Layout layout, double scale) {
    const int NH = heads.NH, KV = heads.KV, HS = heads.HS, width = (NH + 2 * KV) * HS;
    const Places at(pages);
    const char *layouts[] = {"fused", "separate", "misaligned"};
    snprintf(where, sizeof where, "%s, %s, heads %d/%d of %d, %s", sizeof(T) == 2 ? "bf16" : "fp32", pages.name, NH, KV,
             HS, layouts[layout]);
    bool fused = layout == FUSED;
    for (size_t i = 0; i < pages.q.size(); i++) fused = fused && pages.q[i] == pages.k[i];
    fused = fused && !pages.extra;
    const int odd = layout == MISALIGNED ? 1 : 0, ldq = fused ? width : NH * HS + 24 - odd;
    const int ldk = fused ? width : 2 * KV * HS + 8 + odd, Tq = at.cu_q.back();
    const size_t k_at = fused ? NH * HS : 0, v_at = k_at + KV * HS, n_out = (size_t)Tq * NH * HS,
                 n_lse = (size_t)Tq * NH;
    const bool tensor_cores = sizeof(T) == 2 && !odd;

    // Key rows of no page and columns of no head hold NaN: they must not be looked at, and stay in the gradients.
    Doubles q((size_t)Tq * ldq, NAN), kv((size_t)at.Tk * ldk, NAN), dout(n_out);
    for (double &x : dout) x = uniform();
    for (int r = 0; r < Tq; r++)
        for (int d = 0; d < NH * HS; d++) q[(size_t)r * ldq + d] = uniform() * scale;
    for (size_t i = 0; i < pages.q.size(); i++)
        for (int r = at.begin[i]; r < at.end[i]; r++)
            for (int d = 0; d < 2 * KV * HS; d++) kv[(size_t)r * ldk + k_at + d] = uniform();
    if (fused)
        for (int r = 0; r < Tq; r++)
            for (int d = 0; d < NH * HS; d++) kv[(size_t)r * ldk + d] = q[(size_t)r * ldq + d];
    Elements<T> dq_kv(kv, odd), *dkv = &dq_kv, *dqs = dkv;
    if (!fused) dqs = new Elements<T>(q, odd);
    else q = dq_kv.get();
    Elements<T> out(n_out, odd), again(n_out, odd), device_dout(dout, odd);
    Elements<float> lse(n_lse, 0), lse_again(n_lse, 0);

    const Device<int> cu(at.cu_q), begin(at.begin), end(at.end);
    const AttentionPages device_pages = {(int)pages.q.size(), at.max_q, at.max_k, cu.p, begin.p, end.p};
    const RefPages ref_pages = {(int)pages.q.size(), at.cu_q.data(), at.begin.data(), at.end.data()};
    const Device<float> scratch(n_lse); // not a byte more than its rows need
    CudaState state = {};
    state.scratch = scratch.p;
    state.scratch_bytes = n_lse * sizeof(float);
    Backend b = {};
    b.dtype = sizeof(T) == 2 ? DTYPE_BF16 : DTYPE_F32;
    b.state = &state;
    cuda_attention_fill(&b);

    // ---- forward ----
    Reference ref_out(n_out), ref_lse(n_lse);
    ref_attention_forward(ref_out.value.data(), ref_out.mag.data(), ref_out.rounded.data(), ref_lse.value.data(),
                          ref_lse.mag.data(), q.data(), ldq, kv.data() + k_at, kv.data() + v_at, ldk, &ref_pages, NH,
                          KV, HS);
    T *dev_k = dkv->p() + k_at, *dev_v = dkv->p() + v_at;
    b.attention_forward(&b, out.p(), lse.p(), dqs->p(), ldq, dev_k, dev_v, ldk, &device_pages, NH, KV, HS);
    compare("out", out, ref_out, HS + at.max_k, tensor_cores);
    compare("lse", lse, ref_lse, HS + at.max_k, false);
    b.attention_forward(&b, again.p(), nullptr, dqs->p(), ldq, dev_k, dev_v, ldk, &device_pages, NH, KV, HS);
    const Doubles first = out.get(), second = again.get();
    CHECK(!memcmp(first.data(), second.data(), n_out * sizeof(double)), "%s: without lse other bits", where);

    // ---- backward; it and its reference get the same rounded out and lse ----
    Doubles given_out = ref_out.value, given_lse = ref_lse.value;
    out.put(given_out);
    lse.put(given_lse);
    Reference ref_q(q.size()), ref_kv(kv.size());
    for (size_t i = 0; i < q.size(); i++) ref_q.value[i] = std::isnan(q[i]) || (fused && i % ldq >= k_at) ? NAN : 0;
    for (size_t i = 0; i < kv.size(); i++) ref_kv.value[i] = std::isnan(kv[i]) || i % ldk < k_at ? NAN : 0;
    ref_attention_backward(ref_q.value.data(), ref_q.mag.data(), ref_q.rounded.data(), ref_kv.value.data() + k_at,
                           ref_kv.mag.data() + k_at, ref_kv.rounded.data() + k_at, ref_kv.value.data() + v_at,
                           ref_kv.mag.data() + v_at, ref_kv.rounded.data() + v_at, dout.data(), given_out.data(),
                           given_lse.data(), q.data(), ldq, kv.data() + k_at, kv.data() + v_at, ldk, &ref_pages, NH, KV,
                           HS);
    Doubles bits[2][2];
    for (Doubles *run : bits) {
        Elements<T> dq(q.size(), odd), dk_dv(kv.size(), odd);
        b.attention_backward(&b, dq.p(), ldq, dk_dv.p() + k_at, dk_dv.p() + v_at, ldk, device_dout.p(), out.p(),
                             lse.p(), dqs->p(), dev_k, dev_v, &device_pages, NH, KV, HS);
        const double terms = HS + at.max_k + at.max_q * (double)(NH / KV);
        compare("dq", dq, ref_q, terms, tensor_cores);
        compare("dk, dv", dk_dv, ref_kv, terms, tensor_cores);
        run[0] = dq.get();
        run[1] = dk_dv.get();
    }
    for (int i = 0; i < 2; i++)
        CHECK(!memcmp(bits[0][i].data(), bits[1][i].data(), bits[0][i].size() * sizeof(double)),
              "%s: the backward twice: other bits", where);
    if (dqs != dkv) delete dqs;
}

template <class T> static void suite(bool is_short) {
    const Pages one_token = {"one token", {1}, {1}, 0}, one_page = {"one page", {37}, {37}, 0};
    const Pages borders = {"borders of tiles", {1, 63, 64, 65, 1, 17}, {1, 63, 64, 65, 1, 17}, 0};
    const Pages outputs_only = {"outputs_only", {1, 5, 30, 3, 64}, {9, 70, 31, 64, 131}, 0};
    const Pages cache = {"decoding in a cache", {1, 1, 1, 1}, {1, 64, 17, 130}, 5};
    const Pages prefix = {"several new tokens in a cache", {3, 20}, {90, 20}, 7};
    const Pages many = {"many pages", {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8}, {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8}, 0};
    const Pages empty = {"pages without queries", {0, 2, 0}, {3, 2, 0}, 0};
    const Pages middle = {"140 and 20 tokens", {140, 20}, {140, 20}, 0};
    if (is_short) {
        check_begin(sizeof(T) == 2 ? "bf16, short" : "fp32, short");
        attention_case<T>(middle, {2, 1, 64}, FUSED, 3);
        attention_case<T>(middle, {1, 1, 64}, SEPARATE, 60); // scores that grow much from tile to tile
        attention_case<T>(outputs_only, {3, 1, 32}, SEPARATE, 1);
        attention_case<T>(cache, {2, 1, 128}, SEPARATE, 1);
        if (sizeof(T) == 2) attention_case<T>(one_page, {2, 2, 128}, MISALIGNED, 1);
        return;
    }
    const Heads all[] = {{14, 2, 64}, {12, 2, 128}, {16, 2, 128}, {4, 4, 32}, {5, 1, 64}, {6, 2, 32}, {4, 2, 128}};
    for (Heads h : all) {
        static std::string name;
        check_end_case();
        name = std::string(sizeof(T) == 2 ? "bf16" : "fp32") + ", heads " + std::to_string(h.NH) + "/" +
               std::to_string(h.KV) + " of " + std::to_string(h.HS);
        check_begin(name.c_str());
        const bool large = h.NH * h.HS > 1000;
        attention_case<T>(one_token, h, FUSED, 6);
        attention_case<T>(one_page, h, FUSED, 6);
        attention_case<T>(one_page, h, MISALIGNED, 1);
        if (!large) attention_case<T>(borders, h, SEPARATE, 1);
        attention_case<T>(outputs_only, h, SEPARATE, 6);
        attention_case<T>(cache, h, SEPARATE, 1);
        attention_case<T>(prefix, h, SEPARATE, 3);
        attention_case<T>(many, h, FUSED, 1);
        attention_case<T>(empty, h, SEPARATE, 1);
        if (!large) attention_case<T>(middle, h, FUSED, 60); // scores that grow much from tile to tile
    }
    check_end_case();
    check_begin(sizeof(T) == 2 ? "bf16, longer pages" : "fp32, longer pages");
    attention_case<T>({"300 tokens", {300, 20}, {300, 530}, 3}, {2, 1, 128}, SEPARATE, 1);
    attention_case<T>({"257 of 800", {257}, {800}, 0}, {2, 1, 32}, SEPARATE, 6);
}

int main(int argc, char **argv) {
    const bool is_short = argc > 1 && !strcmp(argv[1], "short");
    suite<bf16>(is_short);
    check_end_case();
    suite<float>(is_short);
    return check_done();
}
