#!/usr/bin/env python3
"""How fast data/corpus.py is on text, and how well it finds doubles: synthetic pages with doubles planted in them.

    .venv/bin/python dev/bench_corpus.py [-pages N] [-most_pages M] [-workers N] [-keep DIR]

N pages (320 to 560 words of English frequencies of lengths, drawn by rank as in Zipf's law) in documents of a page each, or of 1 to M
pages, log-uniform. Of the documents one in ten comes a second time as it is, and one in twenty a second time with one word in a
hundred changed, as OCR does. Prints the share of each that was found, the share of the others that was lost, pages a second as a
whole and of each stage, and the most memory of a worker. A run of a million: -pages 1000000 -most_pages 64.
"""
import argparse, io, json, os, random, re, resource, subprocess, sys, tempfile, time

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


def write_pages(f, n, most):
    """(pages, documents, exact doubles, near ones) written as JSONL, n pages and the doubles."""
    rng = random.Random(1)
    words = vocabulary(rng)
    weights, total = [], 0.0
    for rank in range(1, len(words) + 1):
        total += 1 / (rank + 20)
        weights.append(total)
    pages = made = i = exact = near = 0
    while made < n:
        size = min(n - made, int((most + 1) ** rng.random())) if most > 1 else 1
        text = "\f".join(page(rng, words, weights) for _ in range(size))
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
        made, pages, i = made + size, pages + size * (2 if i % 20 in (0, 5, 10) else 1), i + 1
    return pages, i, exact, near


def kept_of(path):
    """Numbers of the documents of which a page stayed, by kind."""
    import zstandard
    kept = {"p": set(), "exact": set(), "near": set()}
    with open(path, "rb") as f:
        for line in io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(f)):
            kind, number = re.search(r"([a-z]+)(\d+)#", json.loads(line)["id"]).groups()
            kept[kind].add(int(number))
    return kept


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("-pages", type=int, default=100_000)
    parser.add_argument("-most_pages", type=int, default=1, help="of a document")
    parser.add_argument("-workers", type=int, default=2)
    parser.add_argument("-keep", help="work here and leave everything")
    o = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = o.keep or folder
        os.makedirs(folder, exist_ok=True)
        with open(f"{folder}/pages.jsonl", "w") as f:
            n, documents, exact, near = write_pages(f, o.pages, o.most_pages)
        began, said = time.time(), ""
        run = subprocess.Popen([sys.executable, f"{ROOT}/data/corpus.py", f"{folder}/pages.jsonl", "-o", f"{folder}/out", "-least",
                                "500", "-most", "2000", "-val", "0", "-test", "0", "-workers", str(o.workers)],
                               stdout=subprocess.PIPE, text=True)
        for line in run.stdout:
            print(line, end="", flush=True)
            said += line
        if run.wait():
            sys.exit("corpus.py failed")
        seconds, usage = time.time() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        kept = kept_of(f"{folder}/out/train.jsonl.zst")
        twice = [len(kept["p"] & kept[kind]) for kind in ("exact", "near")]
        lost = documents - len(kept["p"] | kept["exact"] | kept["near"])
        for stage, wall, processor in re.findall(r"^  (\w+): .*?([\d.]+) s, ([\d.]+) s of processor", said, re.M):
            print(f"{stage}: {n / max(0.1, float(wall)):,.0f} pages a second, {1000 * float(processor) / n:.2f} ms of a core a page")
        print(f"{n:,} pages, {documents + exact + near:,} documents in {seconds:.0f} s: {n / seconds:,.0f} pages a second; "
              f"{usage.ru_utime + usage.ru_stime:.0f} s of processor time; largest process {usage.ru_maxrss >> 10} MB")
        print(f"exact doubles found {1 - twice[0] / exact:.3%} of {exact:,}; near ones {1 - twice[1] / near:.3%} of {near:,}; "
              f"others lost {lost / documents:.3%}")


if __name__ == "__main__":
    main()
