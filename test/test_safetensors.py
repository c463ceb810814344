#!/usr/bin/env python3
"""Files move both ways: what PyPI's safetensors and transformers write, the C side reads, and the other way round.
The C side is build/test/test_weights (write, list, stack, fingerprint)."""
import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import Qwen2Config, Qwen2ForCausalLM
from transformers.utils import logging

logging.set_verbosity_error()
logging.disable_progress_bar()
torch.manual_seed(1)
TOOL = "build/test/test_weights"
passed = failed = 0


def case(name, function, *arguments):
    global passed, failed
    try:
        function(*arguments)
        passed += 1
        print("ok  ", name)
    except Exception as error:
        failed += 1
        print("FAIL", name, "-", type(error).__name__, error)


def tool(*arguments):
    run = subprocess.run([TOOL, *arguments], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr.strip()
    return run.stdout.splitlines()


def line(name, tensor):
    """As the C side prints it: elements and CRC-32 of the values as fp32."""
    values = tensor.detach().to(torch.float32).contiguous().numpy().tobytes()
    return f"{name} {tensor.numel()} {zlib.crc32(values):08x}"


def lines(tensors):
    return [line(name, tensors[name]) for name in sorted(tensors, key=str.encode)]


def test_read_theirs(folder):
    """F32, BF16, F16, odd shapes, names beyond ASCII; the other types are listed, not read."""
    tensors = {
        "f32": torch.randn(3, 5), "bf16": torch.randn(7, 11).to(torch.bfloat16),
        "f16": torch.randn(2, 3, 4).to(torch.float16),
        "half.extremes": torch.tensor([0.0, -0.0, 6e-8, -6e-5, 65504, float("inf")], dtype=torch.float16),
        "scalar": torch.tensor(2.5), "empty": torch.zeros(0, 4), "näme \"quoted\" \\ 名": torch.ones(1),
    }
    path = f"{folder}/theirs.safetensors"
    save_file(tensors, path, metadata={"format": "pt"})
    assert tool("list", path) == lines(tensors), tool("list", path)
    f8 = torch.zeros(3).to(torch.float8_e4m3fn)
    save_file({"i": torch.arange(5), "b": torch.tensor([True, False]), "f8": f8}, path)
    assert tool("list", path) == ["b 2 BOOL", "f8 3 F8_E4M3", "i 40 I64"], tool("list", path)


def test_write_ours(folder, dtype):
    """PyPI's reader takes our files, sees the same numbers, shapes, type and metadata."""
    tool("write", folder, dtype)
    expected = torch.float32 if dtype == "fp32" else torch.bfloat16
    for where in (folder, f"{folder}/llm1"):
        tensors = load_file(f"{where}/model.safetensors")
        assert len(tensors) > 20 and all(t.dtype == expected for t in tensors.values())
        assert tool("list", where) == lines(tensors)
        with safe_open(f"{where}/model.safetensors", "pt") as file:
            assert file.metadata() == {"format": "pt"}, file.metadata()
    tensors = load_file(f"{folder}/model.safetensors")
    shapes = {name: tuple(t.shape) for name, t in tensors.items()}
    assert shapes["model.Q.weight"] == (5, 30) and shapes["model.mm_projector.weight"] == (50, 30), shapes
    assert shapes["lm_head.weight"] == shapes["model.embed_tokens.weight"] == (262, 50), shapes


def same_model(model, tensors):
    parameters = dict(model.named_parameters())
    assert set(parameters) == set(tensors), set(parameters) ^ set(tensors)
    for name, parameter in parameters.items():
        assert torch.equal(parameter.detach(), tensors[name]), name


def test_encoder_in_transformers(folder):
    """llm1/ is a whole Qwen2ForCausalLM."""
    model, report = Qwen2ForCausalLM.from_pretrained(f"{folder}/llm1", dtype="auto", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    same_model(model, load_file(f"{folder}/llm1/model.safetensors"))
    assert model.dtype == torch.bfloat16, model.dtype
    config = model.config
    assert (config.hidden_size, config.num_hidden_layers, config.head_dim) == (30, 2, 16), config
    assert (config.vocab_size, config.eos_token_id, config.bos_token_id) == (262, 258, 256), config
    assert model(torch.arange(9)[None]).logits.shape == (1, 9, 262)


def test_decoder_in_transformers(folder):
    """The root's config.json is that of a Qwen2 model, once model_type says so."""
    with open(f"{folder}/config.json") as file:
        written = json.load(file)
    assert written["model_type"] == "C3" and written["architectures"] == ["C3QwenForCausalLM"], written
    assert written["torch_dtype"] == "bfloat16", written
    config = Qwen2Config.from_dict(dict(written, model_type="qwen2", architectures=["Qwen2ForCausalLM"]))
    theta = config.rope_parameters["rope_theta"] if hasattr(config, "rope_parameters") else config.rope_theta
    assert theta == 1e6 and config.rms_norm_eps == 1e-6, (theta, config.rms_norm_eps)
    assert config.hidden_act == "silu" and config.tie_word_embeddings is False and config.head_dim == 18, config
    assert config.max_position_embeddings == 32768, config
    model = Qwen2ForCausalLM(config).to(torch.bfloat16)
    tensors = load_file(f"{folder}/model.safetensors")
    decoder = {name: t for name, t in tensors.items() if ".Q." not in name and "mm_projector" not in name}
    model.load_state_dict(decoder, strict=True)
    same_model(model, decoder)


def test_read_transformers(folder, tied, dtype):
    """What save_pretrained writes, sharded, in the newest spelling of config.json, is read whole."""
    config = Qwen2Config(vocab_size=300, hidden_size=48, num_hidden_layers=3, num_attention_heads=4,
                         num_key_value_heads=2, intermediate_size=100, max_position_embeddings=4096,
                         rms_norm_eps=1e-5, tie_word_embeddings=tied)
    if hasattr(config, "rope_parameters"):
        config.rope_parameters = {"rope_type": "default", "rope_theta": 54321.0}
    else:
        config.rope_theta = 54321.0
    model = Qwen2ForCausalLM(config).to(dtype)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder, max_shard_size="100KB")
    assert os.path.exists(f"{folder}/model.safetensors.index.json"), os.listdir(folder)
    found = tool("stack", folder)
    assert found[0] == f"config 300 48 3 4 2 12 100 4096 54321 1e-05 {int(tied)}", found[0]
    tensors = {name: t for name, t in model.state_dict().items() if name != "lm_head.weight"}
    assert sorted(found[1:]) == sorted(lines(tensors)), "tensors differ"


def test_fingerprint(folder):
    """SHA-256 over name, zero byte, dimensions, sizes (64 bits, little endian), bytes; sorted; encoder as llm1/."""
    sha = hashlib.sha256()
    for where, prefix in ((folder, ""), (f"{folder}/llm1", "llm1/")):
        tensors = load_file(f"{where}/model.safetensors")
        for name in sorted(tensors, key=str.encode):
            t = tensors[name]
            sha.update((prefix + name).encode() + b"\0" + struct.pack(f"<{1 + t.dim()}Q", t.dim(), *t.shape))
            sha.update(t.contiguous().view(torch.uint8).numpy().tobytes())
    assert tool("fingerprint", folder) == [sha.hexdigest()]


def main():
    if subprocess.run(["make", TOOL], stdout=subprocess.DEVNULL).returncode != 0:
        print("FAIL make", TOOL)
        print("0 passed, 1 failed")
        return 1
    folder = tempfile.mkdtemp(prefix="test_safetensors_", dir="build")
    case("PyPI safetensors -> C", test_read_theirs, folder)
    case("C -> PyPI safetensors, fp32", test_write_ours, folder, "fp32")
    case("C -> PyPI safetensors, bf16", test_write_ours, folder, "bf16")
    case("llm1/ in transformers", test_encoder_in_transformers, folder)
    case("the decoder in transformers", test_decoder_in_transformers, folder)
    for tied in (True, False):
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            case(f"transformers -> C, tied {tied}, {dtype}", test_read_transformers, f"{folder}/qwen2", tied, dtype)
    case("fingerprint", test_fingerprint, folder)
    shutil.rmtree(folder)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
