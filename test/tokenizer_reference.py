"""The reference tokenizers: PyPI's `tokenizers` and `tiktoken`, both fed with the ranks of qwen.tiktoken."""
import base64
import struct
import subprocess

PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
           r"\s+(?!\S)|\s+")


def read_ranks(path):
    """bytes -> rank of a .tiktoken file."""
    with open(path, "rb") as f:
        return {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in f if line.strip())}


def split_token(token, ranks):
    """The two parts whose merge makes a token: what byte-pair merging with the ranks below the token's own ends in."""
    limit = ranks[token]
    splits = [i for i in range(1, len(token)) if max(ranks.get(token[:i], limit), ranks.get(token[i:], limit)) < limit]
    if len(splits) == 1:  # mostly: no need to merge
        return [token[:splits[0]], token[splits[0]:]]
    parts = [token[i:i + 1] for i in range(len(token))]
    while len(parts) > 2:
        best, at = min((ranks.get(parts[i] + parts[i + 1], limit), i) for i in range(len(parts) - 1))
        if best >= limit:
            raise ValueError(f"no merges lead to rank {limit}")
        parts[at:at + 2] = [parts[at] + parts[at + 1]]
    return parts


def byte_alphabet():
    """GPT-2's byte -> character."""
    visible = [*range(0x21, 0x7f), *range(0xa1, 0xad), *range(0xae, 0x100)]
    hidden = [b for b in range(256) if b not in visible]
    return {**{b: chr(b) for b in visible}, **{b: chr(256 + i) for i, b in enumerate(hidden)}}


def vocabulary_json(ranks):
    """`vocab` and `merges` of a tokenizer.json."""
    alphabet = byte_alphabet()
    spell = lambda token: "".join(alphabet[b] for b in token)
    ordered = sorted(ranks, key=ranks.get)
    merges = [tuple(map(spell, split_token(token, ranks))) for token in ordered if len(token) > 1]
    return {spell(token): rank for token, rank in ranks.items()}, merges


def hf_tokenizer(ranks):
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
    vocab, merges = vocabulary_json(ranks)
    t = Tokenizer(models.BPE(vocab, merges))
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    return t


def tiktoken_encoding(ranks):
    import tiktoken
    return tiktoken.Encoding("qwen", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={})


def pack_texts(texts):
    out = bytearray()
    for text in texts:
        data = text.encode()
        out += struct.pack("<I", len(data)) + data
    return bytes(out)


def encode_ours(program, vocabulary, texts, cut=0):
    """Ids of each text by build/test/tokenize_lines."""
    run = subprocess.run([program, vocabulary, str(cut)], input=pack_texts(texts), stdout=subprocess.PIPE, check=True)
    ids, at = [], 0
    for _ in texts:
        (n,) = struct.unpack_from("<I", run.stdout, at)
        ids.append(list(struct.unpack_from(f"<{n}I", run.stdout, at + 4)))
        at += 4 + 4 * n
    assert at == len(run.stdout)
    return ids
