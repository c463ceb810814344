"""study_points.py: what the study trains, one Point a model. The recipe is the same for all; what an ablation changes stands in
its `recipe`, `shape`, `seed` or `variant` and nowhere else."""
import dataclasses

# Stacks as dev/make_random_checkpoint takes them: layers and width of encoder and decoder; heads of 32, 3 D in the MLP.
SHAPES = {
    "base": ((1, 128), (3, 128)),
    "narrow": ((1, 64), (3, 64)),
    "wide": ((1, 256), (3, 256)),
    "encoder 2 + 2": ((2, 128), (2, 128)),  # a layer costs the same on either side
    "encoder 3 + 1": ((3, 128), (1, 128)),
    "no latents": ((1, 2), (3, 128)),  # an encoder of two numbers: what is left is a language model
}
# The demo's but for the rate. Pages grow from 10 tokens to whole over the first half of the steps.
RECIPE = {"lr": 2e-3, "schedule": "linear", "warmup": 200, "beta2": 0.95, "len_warmup": 0.5}
VOCABULARY = 2048
# Ablations that are no option of the trainer: [(source file, a piece of it that occurs once, what takes its place)]. Points of a
# variant are trained and measured by programs of such sources, in build/variants/NAME.
VARIANTS = {
    "no_img": [("llmc/model/batch.c", "        *to++ = t->img;\n", ""),
               ("llmc/model/batch.c", ".enc = context + windows + slots,", ".enc = context + slots,")],
    # its gradient is nothing, and it starts as nothing
    "no_projector_bias": [("llmc/model/cascade.c", "m->enc_acts.out, slots, c->enc.D, c->dec.D, accumulate);\n",
                           "m->enc_acts.out, slots, c->enc.D, c->dec.D, accumulate);\n    b->zero(b, gradient(m, last, "
                           "p->projector_bias), (size_t)c->dec.D * sizeof(float));\n")],
}


@dataclasses.dataclass(frozen=True)
class Point:
    """length: text tokens L. Training pages have L/16 to 11 L/8 of them, those that are measured L/2 to 9 L/8, and those from
    7 L/8 on L in the mean. million: training tokens. lang: "en", "zh", or "en+zh", half of the pages each. mix: the numbers of
    latents from which one is drawn for each page, the largest of them `latents`; empty: always `latents`. start: the point
    whose model it goes on from; empty: random weights. variant: of VARIANTS; empty: the programs as they are."""
    name: str
    million: float
    length: int = 64
    latents: int = 8
    lang: str = "en"
    shape: str = "base"
    seed: int = 1
    group: str = "grid"
    recipe: dict = dataclasses.field(default_factory=dict)
    mix: tuple = ()
    start: str = ""
    variant: str = ""

    @property
    def numbers(self):
        """Of latents to measure."""
        return self.mix or (self.latents,)

    @property
    def languages(self):
        return self.lang.split("+")

    @property
    def mean(self):
        """Tokens of a training page."""
        return 23 / 32 * self.length

    @property
    def pages(self):
        """Of a step."""
        return max(8, min(32, 32 * 64 // self.length))

    @property
    def steps(self):
        """For that many tokens, pages being cut at first."""
        mean, share = self.mean, self.options["len_warmup"]
        a_page = (1 - share) * mean + share * (10 + mean) / 2
        return max(1, round(self.million * 1e6 / (self.pages * a_page)))

    @property
    def options(self):
        return RECIPE | self.recipe

    @property
    def tflop(self):
        """Of the training: 6 for each weight and row it meets; attention is left out."""
        mean, (encoder, decoder) = self.mean, SHAPES[self.shape]
        rows = [(1 + sum(self.numbers) / len(self.numbers) / mean) * layers * layer_weights(d) for layers, d in (encoder, decoder)]
        return 6e-6 * self.million * (sum(rows) + decoder[1] * (VOCABULARY + 6))


def heads(d):
    """Query heads, heads of keys and values, size of a head."""
    return max(1, d // 32), max(1, d // 64), min(32, d)


def stacks(shape):
    """Encoder and decoder of a shape, as dev/make_random_checkpoint takes them."""
    return [",".join(map(str, [VOCABULARY + 6, d, layers, *heads(d), 3 * d])) for layers, d in SHAPES[shape]]


def layer_weights(d):
    n, kv, size = heads(d)
    return d * size * (2 * n + 2 * kv) + 3 * d * 3 * d


def grid(lang, length, millions, start=None):
    """millions: {latents: million tokens}; start: {latents: the point gone on from}"""
    return [Point(f"{lang}_{length}_{n}", m, length, n, lang, start=(start or {}).get(n, "")) for n, m in millions.items()]


def ablations(million, seeds, only=None):
    """Each against "base": pages of 32 tokens, 8 latents, as small as the questions allow."""
    changes = {
        "base": {}, "encoder_frozen": {"freeze": "enc"}, "decoder_frozen": {"freeze": "dec"},
        "both_frozen": {"lr_enc": 0, "lr_dec": 0}, "loss_micro": {"loss_norm": "micro", "b": 8},
        "curriculum_0": {"len_warmup": 0}, "curriculum_25": {"len_warmup": 0.25}, "curriculum_75": {"len_warmup": 0.75},
        "latent_rate_third": {"lr_latent": 0.3333}, "latent_rate_triple": {"lr_latent": 3},
        "encoder_2_2": {"shape": "encoder 2 + 2"}, "encoder_3_1": {"shape": "encoder 3 + 1"},
        **{name: {"variant": name} for name in VARIANTS}}
    for name, change in changes.items():
        fields = change if change.keys() <= {"shape", "variant"} else {"recipe": change}
        for seed in range(1, seeds + 1):
            if only is None or name in only:
                yield Point(f"a_{name}_s{seed}", million, 32, 8, seed=seed, group="ablation", **fields)


def curricula(million):
    """Longer pages, where it matters more: 64 tokens, 16 latents."""
    for share in (0, 0.25, 0.5, 0.75):
        recipe = {"len_warmup": share} if share != RECIPE["len_warmup"] else {}
        yield Point(f"c_64_{100 * share:.0f}", million, 64, 16, group="ablation", recipe=recipe)


def widths(million):
    """Pages of 32 tokens again; "mix" is one model for the three numbers, of as many tokens as three (docs/latents.md)."""
    for shape in ("narrow", "base", "wide"):
        for n in (2, 4, 8):
            yield Point(f"width_{shape}_{n}", million, 32, n, shape=shape, group="width")
    yield Point("mix", 3 * million, 32, 8, group="width", mix=(2, 4, 8))


def language_models(million):
    return [Point(f"lm_{lang}", million, 64, 1, lang, "no latents", group="language model") for lang in ("en", "zh")]


# What more tokens bring where precision is lowest of what is well trained: whole pages from the beginning, at half the rate.
LONGER = Point("en_32_2_longer", 10, 32, 2, start="en_32_2", recipe={"lr": 1e-3, "len_warmup": 0})

# In the order in which they are trained: what matters most, and takes longest, first. Longer pages go on from models of
# shorter ones, of 64 tokens from those of 32: from nothing, pages of 128 had a loss of 3.4 after some four million tokens.
FULL = [
    *grid("en", 32, {2: 28, 4: 14, 8: 4}), LONGER, *language_models(0.8), *grid("zh", 64, {4: 2, 8: 2, 16: 1.5}),
    *grid("en", 64, {4: 3, 8: 3, 16: 2}, {4: "en_32_4", 8: "en_32_8", 16: "en_32_8"}),
    *grid("en", 128, {4: 1.5, 8: 1.5, 16: 1.5, 32: 1.5}, {4: "en_64_4", 8: "en_64_8", 16: "en_64_16", 32: "en_64_16"}),
    *grid("en", 256, {16: 1, 32: 1, 64: 1}, {16: "en_128_16", 32: "en_128_32", 64: "en_128_32"}),
    *ablations(0.3, 3), *curricula(0.8), *widths(0.3),
]
QUICK = [
    *grid("en", 64, {4: 1, 8: 1, 16: 1}), *grid("zh", 64, {8: 1}), *language_models(0.3),
    *grid("en", 128, {16: 0.7}, {16: "en_64_16"}), *ablations(0.2, 1, ("base", "encoder_frozen", "curriculum_0")),
]
