#!/usr/bin/env python3
"""bench_torch.py: the paper's shapes in PyTorch on one GPU, to stand beside dev/cuda/bench and the trainer's own step.

  dev/bench_torch.py kernels [-rows 7864]    products, attention (cuDNN's and FlashAttention's), AdamW, RMSNorm, SwiGLU, a layer
  dev/bench_torch.py step [-steps 4]         the whole training step of both models with transformers
  -device cpu -shapes tiny                   to try this file

bf16 everywhere, also moments and gradients of `step` (less than ./train_c3 keeps: fp32 masters, moments and gradients). A time is
the median of the repeats, measured with events. The last line is a summary."""
import argparse
import statistics
import sys
import time

import torch
import torch.nn.functional as F

SHAPES = {  # (D, L, NH, KV, HS, F) of encoder and decoder, vocabulary, latents, pages of a micro-batch, tokens of a page
    "paper": dict(enc=(1536, 28, 12, 2, 128, 8960), dec=(2048, 36, 16, 2, 128, 11008), V=151860, N=32, pages=8, T=950),
    "tiny": dict(enc=(64, 2, 4, 2, 16, 96), dec=(96, 2, 4, 2, 24, 128), V=512, N=4, pages=2, T=24),
}
PROMPT = 32  # template tokens around latents and text


def median_ms(work, repeats):
    """Milliseconds of one call, the median of `repeats`."""
    cuda = torch.cuda.is_available() and DEVICE != "cpu"
    for _ in range(3):
        work()
    times = []
    for _ in range(repeats):
        if cuda:
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            work()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end))
        else:
            start = time.perf_counter()
            work()
            times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def tensor(*shape, grad=False):
    return torch.randn(*shape, device=DEVICE, dtype=torch.bfloat16, requires_grad=grad)


def show(name, ms, flops=0, bytes_=0):
    rate = f"{flops / ms / 1e9:9.1f} TFLOP/s" if flops else f"{bytes_ / ms / 1e6:9.1f} GB/s" if bytes_ else ""
    print(f"{name:<48} {ms:9.3f} ms {rate}", flush=True)


def attempt(name, work):
    """One line fails alone: an attention backend this PyTorch lacks must not end the others."""
    try:
        work()
    except Exception as e:  # noqa: BLE001
        print(f"{name}: {type(e).__name__}: {str(e).splitlines()[0][:150]}", flush=True)


def products(name, rows, K, N, repeats):
    x, w, d = tensor(rows, K), tensor(N, K), tensor(rows, N)
    flops = 2 * rows * K * N
    show(f"{name} {K} -> {N} forward", median_ms(lambda: x @ w.T, repeats), flops)
    show(f"{name} {K} -> {N} d input", median_ms(lambda: d @ w, repeats), flops)
    show(f"{name} {K} -> {N} d weight", median_ms(lambda: d.T @ x, repeats), flops)


def attention(name, stack, pages, T, repeats):
    from torch.nn.attention import SDPBackend, sdpa_kernel

    _, _, NH, KV, HS, _ = stack
    flops = 4 * pages * T * (T + 1) / 2 * NH * HS
    for backend in ("CUDNN_ATTENTION", "FLASH_ATTENTION"):

        def both(backend=backend):
            q, k, v = tensor(pages, NH, T, HS, grad=True), tensor(pages, KV, T, HS, grad=True), tensor(pages, KV, T, HS, grad=True)
            d = tensor(pages, NH, T, HS)
            with sdpa_kernel(getattr(SDPBackend, backend)):
                def forward():
                    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

                ms = median_ms(forward, repeats)
                show(f"{name} attention {pages} x {T} forward, {backend.lower()}", ms, flops)
                whole = median_ms(lambda: torch.autograd.grad(forward(), (q, k, v), d), repeats)
                show(f"{name} attention {pages} x {T} backward, {backend.lower()}", whole - ms, 2.5 * flops)

        attempt(f"{name} attention, {backend}", both)


def elementwise(name, stack, rows, repeats):
    D, _, _, _, _, wide = stack
    x, w, gate_up = tensor(rows, D, grad=True), tensor(D, grad=True), tensor(rows, 2 * wide, grad=True)
    dx, da = tensor(rows, D), tensor(rows, wide)

    def norm(x, w):
        return w * (x.float() * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + 1e-6)).to(x.dtype)

    def swiglu(g):
        a, b = g.chunk(2, -1)
        return F.silu(a) * b

    for what, function, inputs, d, moved in (("RMSNorm", norm, (x, w), dx, 2), ("SwiGLU", swiglu, (gate_up,), da, 3)):

        def both(what=what, function=function, inputs=inputs, d=d, moved=moved):
            compiled = torch.compile(function)
            n = 2 * d.numel()
            ms = median_ms(lambda: compiled(*inputs), repeats)
            show(f"{name} {what} forward, compiled", ms, bytes_=moved * n)
            whole = median_ms(lambda: torch.autograd.grad(compiled(*inputs), inputs, d), repeats)
            show(f"{name} {what} backward, compiled", whole - ms, bytes_=(moved + 2) * n)

        attempt(f"{name} {what}", both)


def adamw(repeats, n):
    p = torch.nn.Parameter(torch.zeros(n, device=DEVICE))
    p.grad = torch.full_like(p, 1e-3)
    optimizer = torch.optim.AdamW([p], lr=1e-5, fused=True)
    show(f"fused AdamW, fp32, {n >> 20} M parameters", median_ms(optimizer.step, repeats), bytes_=28 * n)


def config(stack, V):
    from transformers import Qwen2Config

    D, L, NH, KV, _, wide = stack
    return Qwen2Config(vocab_size=V, hidden_size=D, num_hidden_layers=L, num_attention_heads=NH, num_key_value_heads=KV,
                       intermediate_size=wide, max_position_embeddings=32768, rope_theta=1e6, tie_word_embeddings=True)


def layer(stack, V, pages, T, repeats):
    """One decoder layer, forward and backward, with SDPA."""
    from transformers import Qwen2Model

    c = config(stack, V)
    c.num_hidden_layers, c._attn_implementation, c.vocab_size = 1, "sdpa", 64
    with torch.device(DEVICE):
        model = Qwen2Model(c).to(torch.bfloat16)
    x, d = tensor(pages, T, stack[0], grad=True), tensor(pages, T, stack[0])

    def both():
        model(inputs_embeds=x, use_cache=False).last_hidden_state.backward(d)

    show(f"a decoder layer {pages} x {T}, forward and backward", median_ms(both, repeats))


def kernels(s, args):
    rows, repeats = args.rows or s["pages"] * (s["T"] + PROMPT + s["N"]), args.repeats
    for name, stack in (("encoder", s["enc"]), ("decoder", s["dec"])):
        D, _, NH, KV, HS, wide = stack
        for K, N in ((D, (NH + 2 * KV) * HS), (NH * HS, D), (D, 2 * wide), (wide, D)):
            products(name, rows, K, N, repeats)
        attention(name, stack, s["pages"], s["T"] + PROMPT + s["N"], repeats)
        elementwise(name, stack, rows, repeats)
    attempt("AdamW", lambda: adamw(repeats, (64 if args.shapes == "paper" else 1) << 20))
    attempt("layer", lambda: layer(s["dec"], s["V"], s["pages"], s["T"] + PROMPT + s["N"], repeats))
    print("summary: PyTorch", torch.__version__, "kernels timed")


def step(s, args):
    """Encoder on text, <img> and queries; decoder on prompt, latents and text; loss on the text. Equal lengths: no padding."""
    from transformers import Qwen2ForCausalLM, Qwen2Model

    enc, dec = config(s["enc"], s["V"]), config(s["dec"], s["V"])
    enc._attn_implementation = dec._attn_implementation = "sdpa"
    with torch.device(DEVICE):
        torch.set_default_dtype(torch.bfloat16)
        encoder, decoder = Qwen2Model(enc), Qwen2ForCausalLM(dec)
        Q = torch.nn.Parameter(torch.randn(s["N"], enc.hidden_size) * 0.02)
        projector = torch.nn.Linear(enc.hidden_size, dec.hidden_size)
        torch.set_default_dtype(torch.float32)
    parameters = [*encoder.parameters(), *decoder.parameters(), *projector.parameters(), Q]
    optimizer = torch.optim.AdamW(parameters, lr=1e-5, fused=True)
    N, T, V = s["N"], s["T"], s["V"]

    def micro(pages):
        text = torch.randint(V, (pages, T), device=DEVICE)
        prompt = torch.randint(V, (pages, PROMPT), device=DEVICE)
        x = torch.cat([encoder.embed_tokens(text), encoder.embed_tokens(prompt[:, :1]), Q.expand(pages, -1, -1)], 1)
        latents = encoder(inputs_embeds=x, use_cache=False).last_hidden_state[:, -N:]
        embed = decoder.get_input_embeddings()
        x = torch.cat([embed(prompt[:, :21]), projector(latents), embed(prompt[:, 21:]), embed(text)], 1)
        hidden = decoder.model(inputs_embeds=x, use_cache=False).last_hidden_state[:, -(T + 1):]
        labels = torch.cat([text, prompt[:, :1]], 1)
        loss = F.cross_entropy(decoder.lm_head(hidden).float().flatten(0, 1), labels.flatten())
        loss.backward()
        return loss

    pages, times = args.pages, []
    total = 32 if args.shapes == "paper" else 4  # one of eight ranks' share of 256 pages
    while pages:
        try:
            for i in range(args.steps):
                start = time.perf_counter()
                for _ in range(0, total, pages):
                    loss = micro(pages)
                torch.nn.utils.clip_grad_norm_(parameters, 1.0)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                value = loss.item()
                times.append(time.perf_counter() - start)
                print(f"step {i + 1}: loss {value:.4f}, {times[-1]:.3f} s", flush=True)
            break
        except torch.OutOfMemoryError:
            optimizer.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
            print(f"{pages} pages at a time: out of memory", flush=True)
            pages, times = pages // 2, []
    if not times:
        sys.exit("not even one page fits")
    best = statistics.median(times[1:] or times)
    memory = torch.cuda.max_memory_allocated() / 1e9 if DEVICE != "cpu" else 0
    print(f"summary: PyTorch {torch.__version__}, {total} pages a step, {pages} at a time: {best:.3f} s, "
          f"{total * T / best:.0f} text tokens/s, {memory:.1f} GB")


def main():
    global DEVICE
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=["kernels", "step"])
    p.add_argument("-device", default="cuda")
    p.add_argument("-shapes", choices=SHAPES, default="paper")
    p.add_argument("-rows", type=int, help="rows of a packed batch; default: pages of 950 tokens")
    p.add_argument("-repeats", type=int, default=20)
    p.add_argument("-steps", type=int, default=4)
    p.add_argument("-pages", type=int, default=8, help="at a time; halved until they fit")
    args = p.parse_args()
    DEVICE = args.device
    torch.manual_seed(1)
    if DEVICE == "cuda":
        print(torch.cuda.get_device_name(), "| PyTorch", torch.__version__, "| CUDA", torch.version.cuda)
    {"kernels": kernels, "step": step}[args.what](SHAPES[args.shapes], args)


main()
