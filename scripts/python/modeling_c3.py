"""modeling_c3.py: a C3 model in PyTorch, on transformers' own Qwen2. train_c3 puts this file into every checkpoint:

    model = AutoModel.from_pretrained("runs/NAME/step_00005000", trust_remote_code=True, dtype=torch.float32)
    latents = model.encode(["a page", "another"])   # (pages, N, D_enc); with windows a list of (windows, N, D_enc)
    texts = model.decode(latents)
    loss = model(texts=["a page", "another"]).loss  # as train_c3 computes it

An encoder, `encoder`, reads a page, <img> and N trainable vectors, `model.Q`; its outputs at these are the latents. A linear
layer, `model.mm_projector`, carries them over to the decoder, a Qwen2ForCausalLM, which is this class itself.
"""
import functools
import os
import re
import unicodedata

import torch
from tokenizers import Tokenizer
from transformers import GenerationConfig, Qwen2ForCausalLM, Qwen2Model
from transformers.convert_slow_tokenizer import bytes_to_unicode
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils import cached_file

from .configuration_c3 import C3Config

SYSTEM = "You should follow the instructions carefully and explain your answers in detail."
PROMPT = "Repeat the text: "
MAX_NEW = 4096
NOTHING = -100  # a label that counts for nothing
BYTES = {character: byte for byte, character in bytes_to_unicode().items()}  # as a byte-level vocabulary writes them
STOP = re.compile(r"""([.!?]["”]?|\.\))\Z""")  # ends a sentence if white space follows
WIDE = re.compile(r"[。！？][”」]?\Z")  # ends a sentence
LOADING = ("cache_dir", "force_download", "local_files_only", "token", "revision", "dtype", "torch_dtype", "device_map",
           "attn_implementation", "use_safetensors")  # options of from_pretrained that hold for the encoder as well


class C3Model(Qwen2Model):
    """The decoder's stack, and what joins it to the encoder."""
    config_class = C3Config

    def __init__(self, config):
        super().__init__(config)
        D_enc = config.contexts_compression_llm_hidden_size
        self.Q = torch.nn.Embedding(config.latent_token_len, D_enc)
        self.mm_projector = torch.nn.Linear(D_enc, config.hidden_size)
        self.post_init()


class C3QwenForCausalLM(Qwen2ForCausalLM):
    config_class = C3Config

    def __init__(self, config):
        super().__init__(config)
        self.model = C3Model(config)
        self.encoder = self.tokenizer = None  # from_pretrained
        self.post_init()

    # ---- files ----

    @classmethod
    def from_pretrained(cls, folder, *args, **kwargs):
        """As transformers' own; output_loading_info is about the decoder's half."""
        found = super().from_pretrained(folder, *args, **kwargs)
        model = found[0] if isinstance(found, tuple) else found
        more = {k: v for k, v in kwargs.items() if k in LOADING}
        model.encoder = Qwen2Model.from_pretrained(folder, subfolder="llm1", **more)
        hub = {k: v for k, v in more.items() if k in LOADING[:5]}
        model.tokenizer = Tokenizer.from_file(cached_file(folder, "tokenizer.json", **hub))
        model.tokenizer.encode_special_tokens = True  # a page that spells one is plain text
        base = model.config.base_vocab
        model.generation_config = GenerationConfig(do_sample=False, eos_token_id=base + 2, pad_token_id=base)
        return found

    def save_pretrained(self, folder, **kwargs):
        """In the layout that it was read from; c3 and train_c3 read it."""
        encoder, self.encoder = self.encoder, None
        try:
            super().save_pretrained(folder, **kwargs)
        finally:
            self.encoder = encoder
        encoder.save_pretrained(os.path.join(folder, "llm1"), **kwargs)
        self.tokenizer.save(os.path.join(folder, "tokenizer.json"))

    # ---- words ----

    def ids(self, text):
        """Of a text, which is brought into Unicode's NFC form."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def words(self, prompt=None):
        """Ids before and after the latents. Each stretch between special tokens is tokenized alone, and so is a prompt."""
        c = self.config
        start, end = c.base_vocab + 1, c.base_vocab + 2
        asked = [] if prompt in (None, PROMPT) else self.ids(prompt)
        if c.c3_template == "bare":
            return [c.im_start_token], [c.im_end_token, *asked] + ([start] if asked else [])
        before = [start, *self.ids("system\n" + SYSTEM), end, start, *self.ids("user\n"), c.im_start_token]
        after = [c.im_end_token, *self.ids("\n"), *(asked or self.ids(PROMPT)), end, start]
        return before, after + self.ids("assistant\n")

    def rows(self, ids):
        """Rows of the decoder's embedding."""
        return self.model.embed_tokens(torch.tensor(ids, dtype=torch.long, device=self.device))

    # ---- encoder ----

    def border(self, before, after):
        """How good a place for a cut is between two ids: 0 inside a character, 1 to 5 after a character, a word, a
        sentence, a line, a paragraph."""
        before, after = (bytes(BYTES[c] for c in self.tokenizer.id_to_token(i)) for i in (before, after))
        if after[0] & 0xC0 == 0x80:
            return 0
        lines = before[len(before.rstrip(b"\r\n")):].count(b"\n")
        if lines:
            return 5 if lines > 1 else 4
        space, end = after[0] in b" \t\n\v\f\r", before.decode(errors="replace")
        return 3 if WIDE.search(end) or (space and STOP.search(end)) else 1 + space

    def windows(self, ids):
        """A page's ids in windows, as train_c3 and c3 cut them: up to the last of the best borders in a window's last
        quarter."""
        most, parts = self.config.c3_window, []
        while most and len(ids) > most:
            at = max(range(most - most // 4, most + 1), key=lambda i: (self.border(ids[i - 1], ids[i]), i))
            parts.append(ids[:at])
            ids = ids[at:]
        return [*parts, ids]

    def encode_ids(self, pages, n=None, batch=None):
        """Lists of ids to latents (windows, N, D_enc) of each page, or the first n of the N, `batch` windows at a time.
        Windows are padded at their ends: with causal attention no row sees what follows it, and no mask is needed."""
        N, embed, img = self.config.latent_token_len, self.encoder.embed_tokens, self.config.im_start_token
        if n is not None and not 1 <= n <= N:
            raise ValueError(f"n: expected 1 to the model's {N} latents, found {n}")
        queries, latents, pages = self.model.Q.weight[:n].to(embed.weight.dtype), [], [self.windows(p) for p in pages]
        windows = [torch.tensor([*w, img], dtype=torch.long, device=self.device) for page in pages for w in page]
        batch = batch or len(windows)
        for i in range(0, len(windows), batch):
            part = windows[i:i + batch]
            x = torch.nn.utils.rnn.pad_sequence([torch.cat([embed(w), queries]) for w in part], batch_first=True)
            hidden = self.encoder(inputs_embeds=x, use_cache=False).last_hidden_state
            latents.append(torch.stack([h[len(w):len(w) + len(queries)] for h, w in zip(hidden, part)]))
        return torch.cat(latents).split([len(page) for page in pages])

    @torch.no_grad()
    def encode(self, texts, batch=16, n=None):
        """Texts to latents (pages, N, D_enc), the encoder's final norm at its last N places, `batch` windows at a time.
        From a model with windows a list, (windows, N, D_enc) of each page. n: only the first n of the N, for a model
        that was trained with so many (config.c3_trained_latents)."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        ids = [self.ids(t) for t in texts]
        empty = next((i for i, page in enumerate(ids) if not page), None)
        if empty is not None or not ids:
            raise ValueError("texts: there is none" if empty is None else f"texts: number {empty + 1} is empty")
        latents = self.encode_ids(ids, n, batch)
        return list(latents) if self.config.c3_window else torch.cat(latents)

    def check(self, latents):
        """Latents as a list, (windows, N, D_enc) of each page in this model's type, or an error that says what is wrong."""
        N, D = self.config.latent_token_len, self.config.contexts_compression_llm_hidden_size
        several = isinstance(latents, (list, tuple))
        pages = [torch.as_tensor(page) for page in (latents if several else [latents])]
        for page in pages or [torch.empty(0)]:
            if page.dim() != 3 or page.shape[2] != D or not 1 <= page.shape[1] <= N or not len(page):
                raise ValueError(f"latents: expected shape ({'windows' if several else 'pages'}, {N}, {D}), or fewer "
                                 f"latents, found {tuple(page.shape)}")
        pages = pages if several else pages[0].split(1)
        bad = next((i for i, page in enumerate(pages) if not torch.isfinite(page).all()), None)
        if bad is not None:
            raise ValueError(f"latents: page {bad + 1} has a number that is not finite")
        return [page.to(self.device, self.model.mm_projector.weight.dtype) for page in pages]

    # ---- decoder ----

    def context(self, latents, prompt=None):
        """What the decoder has before it writes, a tensor (T, D) for each page."""
        before, after = (self.rows(ids) for ids in self.words(prompt))
        return [torch.cat([before, self.model.mm_projector(page.flatten(0, -2)), after]) for page in latents]

    def generate(self, *args, latents=None, prompt=None, **options):
        """transformers' generate. With latents: new ids alone, greedy unless the options say otherwise."""
        if latents is None:
            return super().generate(*args, **options)
        with torch.no_grad():
            rows = self.context(self.check(latents), prompt)
        T = max(map(len, rows))
        fill = [T - len(r) for r in rows]  # rows that nobody sees, before the latents of a page of fewer windows
        x = torch.stack([torch.nn.functional.pad(r, (0, 0, k, 0)) for r, k in zip(rows, fill)])
        mask = (torch.arange(T) >= torch.tensor(fill)[:, None]).long().to(x.device)
        if "max_new_tokens" not in options and "max_length" not in options:
            options["max_new_tokens"] = min(MAX_NEW, self.config.max_position_embeddings - T)
        return super().generate(*args, inputs_embeds=x, attention_mask=mask, **options)

    def decode(self, latents, prompt=None, batch=16, **options):
        """Latents (pages, N, D_enc), or a list of (windows, N, D_enc), to texts in NFC, `batch` pages at a time. options:
        of transformers' generate."""
        latents, texts = self.check(latents), []
        for i in range(0, len(latents), batch):
            for ids in self.generate(latents=latents[i:i + batch], prompt=prompt, **options).tolist():
                texts.append(unicodedata.normalize("NFC", self.tokenizer.decode(ids, skip_special_tokens=True)))
        return texts

    # ---- training ----

    @functools.wraps(Qwen2ForCausalLM.forward)  # transformers reads the signature
    def forward(self, *args, texts=None, contexts=None, prompt=None, n=None, **kwargs):
        """With texts: the mean cross entropy of their tokens and the end mark after each, over the whole batch, given
        the latents of contexts (default: of the texts themselves; n: the first n), and logits of these rows, (rows, V)."""
        if texts is None:
            return super().forward(*args, **kwargs)
        answers = [self.ids(t) for t in texts]
        pages = answers if contexts is None else [self.ids(c) for c in contexts]
        end = self.config.base_vocab + 2
        inputs, labels = [], []
        context = self.context(self.encode_ids(pages, n), prompt)
        for before, ids in zip(context, answers, strict=True):
            inputs.append(torch.cat([before, self.rows(ids)]))
            label = torch.full((len(inputs[-1]),), NOTHING, dtype=torch.long, device=self.device)
            label[len(before) - 1:] = torch.tensor([*ids, end])  # the last row of the context predicts the first token
            labels.append(label)
        x = torch.nn.utils.rnn.pad_sequence(inputs, batch_first=True)
        labels = torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=NOTHING)
        hidden = self.model(inputs_embeds=x, use_cache=False).last_hidden_state
        logits = self.lm_head(hidden[labels != NOTHING])
        loss = torch.nn.functional.cross_entropy(logits.float(), labels[labels != NOTHING])
        return CausalLMOutputWithPast(loss=loss, logits=logits)
