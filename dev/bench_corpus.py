#!/usr/bin/env python3
"""How fast data/corpus.py is on text, and how well it finds doubles: synthetic pages with doubles planted in them.

    .venv/bin/python dev/bench_corpus.py [-pages N] [-workers N] [-keep DIR]

Of N documents of a page each (600 to 1300 tokens, English frequencies of word lengths, words drawn by rank as in Zipf's law)
one in ten comes a second time as it is, and one in twenty a second time with one word in a hundred changed, as OCR does. Prints
the share of each that was found, the share of the others that was lost, pages a second, seconds of each stage and the most
memory of a worker.
"""
import argparse, io, json, os, random, resource, subprocess, sys, tempfile, time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def vocabulary(rng, n=30000):
    syllables = [a + b for a in "b c d f g h l m n p r s t v w st pr ch".split() for b in "a e i o u an er in ou".split()]
    return ["".join(rng.choice(syllables) for _ in range(1 + (i > 100) + (i > 3000 and rng.random() < 0.5))) for i in range(n)]


def page(rng, words, weights):
    drawn = rng.choices(words, cum_weights=weights, k=rng.randint(320, 560))
    for i in range(0, len(drawn), 3):
        drawn[i] = rng.choice(("the", "of", "and", "to", "in", "a", "is", "that"))
    for i in range(rng.randint(8, 14), len(drawn), rng.randint(9, 17)):
        drawn[i] += "." if i % 5 else ".\n\n"
    return " ".join(drawn)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("-pages", type=int, default=100_000)
    parser.add_argument("-workers", type=int, default=2)
    parser.add_argument("-keep", help="work here and leave everything")
    o = parser.parse_args()
    rng = random.Random(1)
    words = vocabulary(rng)
    weights, total = [], 0.0
    for rank in range(1, len(words) + 1):
        total += 1 / (rank + 20)
        weights.append(total)
    with tempfile.TemporaryDirectory() as folder:
        folder = o.keep or folder
        os.makedirs(folder, exist_ok=True)
        exact = near = 0
        with open(f"{folder}/pages.jsonl", "w") as f:
            for i in range(o.pages):
                text = page(rng, words, weights)
                f.write(json.dumps({"id": f"p{i}", "text": text}) + "\n")
                if i % 20 in (0, 10):
                    f.write(json.dumps({"id": f"exact{i}", "text": text}) + "\n")
                    exact += 1
                elif i % 20 == 5:
                    changed = text.split(" ")
                    for at in rng.sample(range(len(changed)), len(changed) // 100):
                        changed[at] = rng.choice(words)
                    f.write(json.dumps({"id": f"near{i}", "text": " ".join(changed)}) + "\n")
                    near += 1
        began = time.time()
        run = subprocess.run([sys.executable, f"{ROOT}/data/corpus.py", f"{folder}/pages.jsonl", "-o", f"{folder}/out", "-least",
                              "500", "-most", "2000", "-val", "0", "-test", "0", "-workers", str(o.workers)])
        seconds = time.time() - began
        if run.returncode:
            sys.exit("corpus.py failed")
        with open(f"{folder}/out/manifest.json") as f:
            made = json.load(f)
        import zstandard
        kept = {"p": set(), "exact": set(), "near": set()}
        with open(f"{folder}/out/train.jsonl.zst", "rb") as f:
            for line in io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(f)):
                name = json.loads(line)["id"].split("#")[0].split("/")[-1]
                kind = name.rstrip("0123456789")
                kept[kind].add(int(name[len(kind):]))
        twice = sum(i in kept["p"] for i in kept["exact"]), sum(i in kept["p"] for i in kept["near"])
        innocent = sum(i not in kept["p"] | kept["exact"] | kept["near"] for i in range(o.pages))
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        n = o.pages + exact + near
        print(json.dumps(made["stages"]))
        print(f"{n:,} pages in {seconds:.0f} s: {n / seconds:,.0f} a second; {usage.ru_utime + usage.ru_stime:.0f} s of processor "
              f"time: {n / (usage.ru_utime + usage.ru_stime):,.0f} a second and core; largest process {usage.ru_maxrss >> 10} MB")
        print(f"exact doubles found {1 - twice[0] / exact:.3%} of {exact:,}; near ones {1 - twice[1] / near:.3%} of {near:,}; "
              f"others lost {innocent / o.pages:.3%}")


if __name__ == "__main__":
    main()
