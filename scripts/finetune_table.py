"""finetune_table.py DIR: the same pages before and after fine-tuning, from DIR/eval_NAME_before and _after; prints the table
and writes it to DIR/finetune.md."""
import glob
import os
import sys

import runs


def facts(folder):
    notes = []
    found = runs.read_evaluation(folder, notes)
    if not found:
        sys.exit(f"finetune_table.py: {'; '.join(notes)}")
    return found


def row(name, before, after):
    """Means of the two evaluations side by side; points are percentage points."""
    right = [100 * e.number("char_precision") for e in (before, after)]
    exact = [100 * e.number("exact_match") for e in (before, after)]
    alone = [runs.number(e.summary.get("decoder_alone"), "perplexity") for e in (before, after)]
    return [name, f"{after.number('pages'):,.0f}", f"{after.number('tokens_per_latent'):.1f}",
            f"{right[0]:.2f} %", f"{right[1]:.2f} %", f"{right[1] - right[0]:+.2f}", f"{exact[0]:.1f} %", f"{exact[1]:.1f} %",
            *("-" if p is None else f"{p:.3g}" for p in alone)]


def main(folder):
    found = sorted(glob.glob(os.path.join(glob.escape(folder), "eval_*_before")))
    if not found:
        sys.exit(f"finetune_table.py: {folder}: no eval_*_before")
    rows = [row(os.path.basename(f)[len("eval_"):-len("_before")], facts(f), facts(f[:-len("before")] + "after"))
            for f in found]
    head = ["held-out pages", "pages", "tokens a latent", "characters before", "after", "points", "exact before", "after",
            "decoder's perplexity alone before", "after"]
    lines = ["| " + " | ".join(cells) + " |" for cells in [head, ["---", *["---:"] * (len(head) - 1)], *rows]]
    text = "\n".join(lines) + "\n"
    runs.write_whole(os.path.join(folder, "finetune.md"), "# Before and after\n\n" + text + """
Characters: 1 - edit distance / longer length, mean over pages, decoded greedily. The decoder alone sees no latents: its
perplexity on the text tells what it still knows of language by itself.
""")
    print(text, end="")


main(sys.argv[1])
