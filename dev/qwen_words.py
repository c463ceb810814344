"""qwen_words.py: the words around latents and text as token ids, for the PyTorch twin and the benchmark."""
import base64
import json
from dataclasses import dataclass


@dataclass
class Words:
    """Token ids around latents and text. `img` also stands before the queries in the encoder's sequence."""

    before: list  # up to and including <img>
    after: list  # from </img> to the start of the text
    end: int  # <|im_end|>: the last label, never an input
    img: int
    ask: list = ()  # in place of `after`, before a prompt of the page's own ...
    answer: list = ()  # ... and behind it


PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
           r"\s+(?!\S)|\s+")  # fmt: skip


def tokenizer_ranks(path):
    """{token bytes: rank} of the base vocabulary, from tokenizer.json or qwen.tiktoken."""
    if path.endswith(".json"):
        visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
        hidden = [b for b in range(256) if b not in visible]
        bytes_of = {chr(b): b for b in visible} | {chr(256 + i): b for i, b in enumerate(hidden)}
        with open(path, encoding="utf-8") as f:
            vocab = json.load(f)["model"]["vocab"]
        return {bytes(bytes_of[c] for c in token): rank for token, rank in vocab.items()}
    with open(path, "rb") as f:
        return {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in f)}


def make_words(template, tokenizer, img, im_end):
    """The template "c3" or "bare" in tokens. img, im_end: as in config.json; K <|endoftext|>, K+1 <|im_start|>,
    K+2 <|im_end|> stand behind a vocabulary cut at K, and the whole one has the same order."""
    if template == "bare":
        return Words([img], [img + 1], im_end, img)
    import tiktoken

    ranks = {t: r for t, r in tokenizer_ranks(tokenizer).items() if r < im_end - 2}
    encode = tiktoken.Encoding("cut", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={}).encode_ordinary
    system = "You should follow the instructions carefully and explain your answers in detail."
    before = [im_end - 1, *encode("system\n" + system), im_end, im_end - 1, *encode("user\n"), img]
    after = [img + 1, *encode("\nRepeat the text: "), im_end, im_end - 1, *encode("assistant\n")]
    return Words(before, after, im_end, img)
