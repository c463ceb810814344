"""A checkpoint says on which lengths of pages it was trained; every command goes by it and warns outside: compress cuts
to it, reconstruct, eval and tokenize count what it does not know, a model that is trained on goes on with what it knows."""
import json
import os

from harness import C3, TOKENIZER, TRAIN, Folder, case, done, run

SMALL = ["-preset", "tiny", "-vocab", 2048, "-n", 4, "-steps", 1, "-b", 4, "-g", 1, "-threads", 1]


def write(path, texts):
    with open(path, "w") as f:
        f.writelines(json.dumps({"id": f"p{n}", "text": text}) + "\n" for n, text in enumerate(texts))
    return path


def lengths(model):
    folder, = (f"{model}/{name}" for name in os.listdir(model) if name.startswith("step_"))
    with open(f"{folder}/config.json") as f:
        return folder, json.load(f).get("c3_trained_tokens")


def warned(r, *says):
    lines = [line for line in r.stderr.splitlines() if "warning" in line]
    return len(lines) == 1 and all(s in lines[0] for s in says)


with Folder() as tmp:
    words = lambda n: " and" * n  # a token each
    train = write(f"{tmp}/train.jsonl", [words(n) for n in (5, 9, 20, 12)])
    run(C3, ["tokenize", "-tok", TOKENIZER, "-vocab", 2048, "-o", f"{tmp}/train", train])
    run(TRAIN, SMALL + ["-data", f"{tmp}/train_*.bin", "-o", f"{tmp}/run"])
    model, known = lengths(f"{tmp}/run")
    case("the checkpoint holds the least and the most tokens of its pages", known == [5, 20], known)
    case("c3 info says so", "on pages of 5 to 20 tokens" in run(C3, ["info", model]).stdout)

    run(TRAIN, SMALL + ["-data", f"{tmp}/train_*.bin", "-maxlen", 70, "-o", f"{tmp}/cut"])
    case("pages that -maxlen leaves out do not count", lengths(f"{tmp}/cut")[1] == [5, 12], lengths(f"{tmp}/cut")[1])

    pages = write(f"{tmp}/pages.jsonl", [words(n) for n in (3, 5, 20, 21, 40)])
    for command in (["reconstruct", "-json"], ["eval", "-o", f"{tmp}/eval", "-no_controls"]):
        file = [pages] if command[0] == "eval" else ["-f", pages]
        r = run(C3, command + ["-m", model, "-max_new", 4] + file)
        case(f"{command[0]} warns of lengths never seen", warned(r, "3 of 5 pages", "5 to 20 tokens"), r.stderr)
    inside = write(f"{tmp}/inside.jsonl", [words(5), words(20)])
    r = run(C3, ["reconstruct", "-m", model, "-max_new", 4, "-f", inside])
    case("reconstruct has nothing to warn of inside", "warning" not in r.stderr, r.stderr)

    book = write(f"{tmp}/book.jsonl", ["\n\n".join([words(15).strip()] * 20)])
    compress = ["compress", "-m", model, "-f", book, "-o", f"{tmp}/book.c3"]
    r = run(C3, compress)
    case("compress cuts to the lengths the model knows", "20 pages" in r.stdout and "warning" not in r.stderr,
         r.stdout + r.stderr)
    r = run(C3, compress + ["-page_tokens", 100])
    case("compress warns when it shall cut to others", warned(r, "longer", "5 to 20 tokens"), r.stdout + r.stderr)

    r = run(C3, ["tokenize", "-m", model, "-o", f"{tmp}/more", pages])
    case("tokenize -m warns of lengths never seen", warned(r, "3 of 5 pages are shorter or longer"), r.stderr)
    r = run(TRAIN, ["-m", model, "-data", f"{tmp}/more_*.bin", "-steps", 1, "-b", 4, "-g", 1, "-threads", 1, "-o",
                    f"{tmp}/on"])  # fmt: skip
    case("what tokenize -m makes, the model takes: it goes on, and says what is new to it",
         "3 to 40 tokens" in r.stdout and "5 to 20" in r.stdout, r.stdout)
    case("the new checkpoint knows both", lengths(f"{tmp}/on")[1] == [3, 40], lengths(f"{tmp}/on")[1])
    r = run(C3, ["tokenize", "-m", model, "-vocab", 2048, "-o", f"{tmp}/x", pages], check=False)
    case("tokenize: -m and -vocab are refused", r.returncode == 2 and "-vocab" in r.stderr, r.stderr)

    with open(f"{model}/config.json") as f:
        config = json.load(f)
    del config["c3_trained_tokens"]
    with open(f"{model}/config.json", "w") as f:
        json.dump(config, f)
    r = run(C3, ["reconstruct", "-m", model, "-max_new", 4, "-f", pages])
    case("nothing is warned of where nobody knows", "warning" not in r.stderr, r.stderr)
    r = run(C3, compress)
    case("and compress takes its usual length", "1 page" in r.stdout and "pages" not in r.stdout, r.stdout)
    r = run(TRAIN, ["-m", model, "-data", f"{tmp}/train_*.bin", "-steps", 1, "-b", 4, "-g", 1, "-threads", 1, "-o",
                    f"{tmp}/own"])  # fmt: skip
    case("a model of others knows what it is trained on here", lengths(f"{tmp}/own")[1] == [5, 20],
         lengths(f"{tmp}/own")[1])
done()
