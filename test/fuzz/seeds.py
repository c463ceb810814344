#!/usr/bin/env python3
"""seeds.py NAME FOLDER: small valid files for the fuzzer NAME to start from, and the same with one thing wrong.

Without them a fuzzer spends its seconds on finding out what the first bytes of a file look like.
"""
import base64
import hashlib
import json
import os
import struct
import sys
import zlib


def shard(pages, vocab=64, of=None, version=1):
    """Layout at the head of llmc/data/shard.c. pages: lists of context ids, or tuples (context, answer) or (context, answer,
    prompt); of: (index, count) in a set."""
    index, tokens = b"", []
    for page in pages:
        context, answer, prompt = (*page, [])[:3] if isinstance(page, tuple) else (page, [], [])
        index += struct.pack("<QIIII", len(tokens), len(context), len(answer), len(prompt), 0)
        tokens += context + prompt + answer
    body = struct.pack(f"<{len(tokens)}I", *tokens)
    head = struct.pack("<8sIIQQII32sQQII", b"C3SHARD\n", version, 1024, len(pages), len(tokens), vocab, 0, bytes(range(32)),
                       1024, 1024 + len(index), zlib.crc32(index), zlib.crc32(body))
    head += struct.pack("<QII", 77, *of) + bytes(1004 - len(head)) if of else bytes(1020 - len(head))
    return head + struct.pack("<I", zlib.crc32(head)) + index + body


def shards():
    yield shard([])
    yield shard([[1, 2, 3]])
    yield shard([[1] * 20, ([4, 5], [6, 7, 8]), [63]])
    yield shard([[1, 2], ([4, 5], [6, 7, 8], [9]), ([1], [], [2, 3])], version=2)
    yield shard([([4, 5], [6, 7, 8], [9])])  # a prompt, which version 1 has not
    yield shard([[1], [2]], of=(2, 3))
    yield shard([[1]], of=(3, 3))
    yield shard([[64]])  # one id too many for the vocabulary
    yield shard([[1, 2, 3], [4]])[:-4]


def tensors(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def safetensors():
    two = {"__metadata__": {"format": "pt", "step": "3"},
           "a.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
           "b": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]}}
    yield tensors(two, bytes(range(32)))
    yield tensors({}, b"")
    yield tensors({"x": {"dtype": "F16", "shape": [], "data_offsets": [0, 2]}}, b"\0\x3c")
    yield tensors({"x": {"dtype": "I64", "shape": [1, 1], "data_offsets": [0, 8]}}, bytes(8))
    yield tensors({"x": {"dtype": "F32", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 4]}}, bytes(4))
    yield tensors(two, bytes(31))
    yield struct.pack("<Q", 1 << 62) + b"{}"
    yield json.dumps(two).encode() + b"\x20"  # the fuzzer's own second form: a header and the bytes behind it


def latent_file(documents, numbers=bytes(4), shape=(2, 1, 1), **other):
    """Layout at the head of llmc/weights/latents.h."""
    model, text = "ab" * 32, json.dumps(documents)
    meta = {"format": "c3-latents", "version": "1", "model": model, "documents": text,
            "sha256": hashlib.sha256(model.encode() + b"\0" + text.encode() + b"\0" + numbers).hexdigest(), **other}
    return tensors({"__metadata__": meta, "latents": {"dtype": "BF16", "shape": list(shape),
                                                      "data_offsets": [0, len(numbers)]}}, numbers)


def latents():
    page = {"tokens": 7, "sha256": "0f" * 32}
    one = {"documents": [{"id": "a", "nfc": True, "pages": [page], "gaps": ["", "\n"]},
                         {"id": "b", "nfc": False, "pages": [page], "gaps": [" ", ""]}]}
    two = {"documents": [{"id": "a", "nfc": True, "pages": [page, page], "gaps": ["", "\n\n", "\n"]}]}
    yield latent_file(one)
    yield latent_file(two)
    yield latent_file(two, b"\x80\x7f\0\0")  # not finite
    yield latent_file(one, version="2")
    yield latent_file({"documents": []})
    yield json.dumps(one).encode()  # the fuzzer's own second form: documents alone
    yield json.dumps(two).encode()


QWEN2 = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "vocab_size": 4102, "hidden_size": 192,
         "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2, "intermediate_size": 512,
         "max_position_embeddings": 8192, "rope_theta": 1000000.0, "rms_norm_eps": 1e-06, "tie_word_embeddings": True,
         "torch_dtype": "bfloat16", "hidden_act": "silu"}
C3 = {**QWEN2, "architectures": ["C3QwenForCausalLM"], "model_type": "C3", "latent_token_len": 8,
      "contexts_compression_llm_hidden_size": 128, "im_start_token": 4099, "im_end_token": 4100,
      "im_patch_token": 4101, "eos_token_id": 4098, "bos_token_id": 4096, "use_im_start_end": True}


def configs():
    yield json.dumps(QWEN2).encode()
    yield json.dumps(C3, indent=2).encode()
    yield json.dumps({**C3, "c3_template": "bare", "torch_dtype": "float32"}).encode()
    yield json.dumps({**QWEN2, "num_key_value_heads": 0}).encode()
    yield json.dumps({**QWEN2, "hidden_size": 1e99, "rope_theta": None}).encode()
    yield json.dumps({key: QWEN2[key] for key in QWEN2 if key != "vocab_size"}).encode()


def small_model():
    """The tensors of the root file of fuzz_folder.c's model: 256 base tokens, one layer, every width 8, 2 latents."""
    layer = {"self_attn." + n + "_proj." + k: s for n in "qkv" for k, s in (("weight", [8, 8]), ("bias", [8]))}
    layer |= {"self_attn.o_proj.weight": [8, 8], "input_layernorm.weight": [8], "post_attention_layernorm.weight": [8]}
    layer |= {f"mlp.{n}_proj.weight": [8, 8] for n in ("gate", "up", "down")}
    return {"model.embed_tokens.weight": [262, 8], "model.norm.weight": [8], "model.Q.weight": [2, 8],
            "model.mm_projector.weight": [8, 8], "model.mm_projector.bias": [8],
            **{"model.layers.0." + name: shape for name, shape in layer.items()}}


def folders():
    """The first byte is the file of fuzz_folder.c that the rest replaces."""
    small = {"vocab_size": 262, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1,
             "num_key_value_heads": 1, "intermediate_size": 8}
    c3 = {**C3, **small, "latent_token_len": 2, "contexts_compression_llm_hidden_size": 8, "c3_template": "bare",
          "im_start_token": 259, "im_end_token": 260, "im_patch_token": 261, "eos_token_id": 258, "bos_token_id": 256}
    header, at = {}, 0
    for name, shape in small_model().items():
        size = 2 * shape[0] * (shape[1] if len(shape) == 2 else 1)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    extra = {**header, "model.layers.1.mlp.up_proj.weight": {"dtype": "BF16", "shape": [0], "data_offsets": [at, at]}}
    index = {"metadata": {"total_size": at}, "weight_map": {name: "model-00001.safetensors" for name in header}}
    state = {"format": 1, "step": 0, "tokens_seen": 5, "loader_seed": "1", "loader_epoch": "0", "loader_position": "9",
             "dataset": "77", "tokenizer": "ab" * 32, "ranks": 1, "dtype": "bf16"}
    marker = {"files": [{"name": "config.json", "bytes": 600, "crc32": 1}]}
    encoder = {**QWEN2, **small}
    for which, content in ((0, c3), (0, {**c3, "num_hidden_layers": 2}), (0, {**c3, "tie_word_embeddings": False}),
                           (1, encoder), (1, {**encoder, "vocab_size": 263}), (1, {**encoder, "hidden_size": 16}),
                           (2, header), (2, extra), (3, index), (3, {"weight_map": {}}), (4, marker),
                           (4, {"files": []}), (5, state), (5, {**state, "step": 1})):
        yield bytes([which]) + json.dumps(content).encode()


def vocabulary():
    """A byte-level BPE of 256 bytes and a few merges."""
    merged = [b"th", b"the", b" the", b"in", b"ing", "中".encode()[:2], "中".encode()]
    return [bytes([byte]) for byte in range(256)] + merged


def byte_letters():
    """The printable letter GPT-2 gives each byte, as tokenizer.json spells tokens."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    other = [byte for byte in range(256) if byte not in plain]
    return {**{byte: chr(byte) for byte in plain}, **{byte: chr(256 + i) for i, byte in enumerate(other)}}


def tokenizers():
    tokens = vocabulary()
    lines = [base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(tokens)]
    yield b"".join(lines)
    yield b"".join(lines)[:-9]
    yield b"".join(lines[:256] + lines[257:])
    letters = byte_letters()
    spell = ["".join(letters[byte] for byte in token) for token in tokens]
    merges = [["t", "h"], ["th", "e"], ["Ġ", "the"], ["i", "n"], ["in", "g"], [spell[0xe4], spell[0xb8]],
              [spell[261], spell[0xad]]]
    model = {"type": "BPE", "vocab": {s: i for i, s in enumerate(spell)}, "merges": merges}
    added = [{"id": 300, "content": "<|im_start|>", "special": True},
             {"id": 301, "content": "<|im_end|>", "special": True}]
    yield json.dumps({"version": "1.0", "added_tokens": added, "model": model}, ensure_ascii=False).encode()
    model["merges"] = [" ".join(pair) for pair in merges]
    yield json.dumps({"model": model}).encode()


def texts():
    yield "It's the thing: 3.14\r\n\t  中文，e\u0301 \ufb01 한 <|im_end|>".encode()
    yield "  \n\n \u3000x\u0323\u0307 WE'LL 2024年 🙂\u200d".encode()
    yield b"broken \xed\xa0\x80 \xf5 \xc0\x80 utf-8 \xe4\xb8"


def pages():
    yield b'{\n "text": "x",\n "more": [\n {"y": 1}\n ]\n}\n{\n "text": "y"\n}\n'
    yield b' [ "x", {} ]'
    yield b"one\x0c\x0c \n\x0ctwo\x0c\n"
    yield b"first page\nof two lines\n\x0csecond page\n"
    yield b'{"id": "a", "text": "one"}\n{"text": "caf\\u00e9 \\ud83d\\ude00", "n": [1, {"x": null}]}\n'
    official = [{"image": "p1", "conversations": [{"from": "context", "value": "a page"},
                                                  {"from": "human", "value": "Repeat the text: "},
                                                  {"from": "gpt", "value": "a page"}]}]
    yield json.dumps(official).encode()
    yield json.dumps([{"image": "en_1.png", "conversations": [{"value": "OCR:"}, {"value": "words"}]}]).encode()
    yield b'{"context": "c", "prompt": "p", "answer": "a"}\n'
    yield json.dumps({"messages": [{"role": "system", "content": "c"}, {"role": "user", "content": "p"},
                                   {"role": "assistant", "content": "a"}]}).encode()
    yield b'{"text": "no end'
    yield b'{"id": 7}\n\n{"text": ""}\n'
    yield b"\xff\xfe\x0c\x0c"


def anything():
    yield b"{}"
    yield b'{"step": 1, "text": "a", "list": [1, 2.5e3, null, true]}'
    yield b"a line\nanother\n"


GENERATORS = {"shard": shards, "safetensors": safetensors, "config": configs, "latents": latents,
              "tokenizer": tokenizers, "encode": texts, "pages": pages, "folder": folders}


def main():
    name, folder = sys.argv[1:]
    os.makedirs(folder, exist_ok=True)
    for number, data in enumerate(GENERATORS.get(name, anything)()):
        with open(os.path.join(folder, f"seed{number}"), "wb") as file:
            file.write(data)


if __name__ == "__main__":
    main()
