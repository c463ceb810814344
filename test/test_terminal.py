"""What a person at a terminal sees, and what stands in a file instead: the trainer's bar, also behind mpirun, and that of
c3 eval; that text is waited for."""
import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import threading

from harness import C3, TRAIN, Folder, case, command, done, environment, make_pages, make_shards

COLUMNS = 80


def seen(words, stdout=None, stdin=b"", keys=None):
    """Runs it at a terminal, where keys are typed if there are any, or with stdout in a pipe where only stderr is one.
    (exit code, terminal, pipe)"""
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    env = environment()
    env.update(TERM="xterm", NO_COLOR="")
    p = subprocess.Popen(words, stdin=child if keys else subprocess.PIPE, stdout=stdout or child, stderr=child, env=env)
    os.close(child)
    if keys:
        os.write(parent, keys)
        stdin = None
    shown = []

    def drain():
        try:
            while piece := os.read(parent, 65536):
                shown.append(piece)
        except OSError:  # the other side is closed
            pass

    reader = threading.Thread(target=drain)
    reader.start()
    try:
        piped = p.communicate(stdin, timeout=120)[0] or b""
    except subprocess.TimeoutExpired:
        p.kill()
        piped = b"ended after 120 s"
        p.wait()
    reader.join()
    os.close(parent)
    return p.returncode, b"".join(shown).decode(), piped.decode()


def widest(text):
    """Columns of the longest line that was rewritten in place."""
    return max((len(line) for line in re.findall(r"\r\x1b\[K(\[[^\r\n\x1b]*)", text)), default=0)


def training(folder):
    data = make_shards(folder, "pages", 12, seed=1)

    def train(name, ranks, wrapped=False, piped=False):
        words = command(TRAIN, ["-preset", "tiny", "-data", data, "-val", data, "-val_pages", 4, "-sample_every", 3,
                                "-samples", 1, "-steps", 4, "-b", 1, "-g", 1, "-threads", 1, "-o",
                                os.path.join(folder, name)], ranks)
        if wrapped:  # a shell between mpirun and the trainer
            at = words.index(TRAIN)
            words = words[:at] + ["bash", "-c", '"$@"; exit $?', "bash"] + words[at:]
        return seen(words, subprocess.PIPE if piped else None)

    for ranks, wrapped in ((1, False), (2, False), (2, True)):
        how = f"{ranks} rank(s){', started by a shell under mpirun' if wrapped else ''}"
        code, text, _ = train(f"bar{ranks}{wrapped}", ranks, wrapped)
        case(f"{how}: a bar with the time left right behind the step, in 80 columns",
             code == 0 and re.search(r"\r\x1b\[K\[=====               \] 1/4 \| [\w ]+ left \| loss", text) and
             60 < widest(text) < COLUMNS, text[-1500:])
        case(f"{how}: the last step stays, and the step of every note",
             all(re.search(rf"(?:\n|\x1b\[K)step {n}/4 \| [\w ]+ left \| loss", text) for n in (3, 4)) and
             "done at step 4 of 4" in text, text[-1500:])
        case(f"{how}: wrong characters of a sample in colour", "\x1b[7;31m" in text, text[-1500:])
        code, text, out = train(f"file{ranks}{wrapped}", ranks, wrapped, piped=True)
        case(f"{how}: a file gets plain lines, whatever terminal mpirun makes for its ranks",
             code == 0 and "step 4/4 | " in out and "\r" not in out and "\x1b" not in out and "[=" not in text,
             (out[-2000:], text[-500:]))


def waiting(folder):
    """Commands that read text say so where somebody sits, and nowhere else."""
    model = os.path.join(folder, "bar1False")
    line = "c3: waiting for text at this terminal: Ctrl-D"
    for name, words in (("reconstruct", ["-max_new", "2"]), ("compress", ["-o", os.path.join(folder, "x.c3")])):
        code, text, _ = seen([C3, name, "-m", model, *words], keys=b"some words\n\x04")
        case(f"{name} without -f says that it waits for text, and takes what is typed",
             code == 0 and text.count(line) == 1, (code, text))
        code, text, _ = seen([C3, name, "-m", model, *words], stdin=b"some words\n")
        case(f"{name} reading a pipe does not", code == 0 and line not in text, (code, text))


def evaluation(folder):
    """One bar through all phases of c3 eval, with the time left."""
    pages = os.path.join(folder, "held_out.jsonl")
    make_pages(pages, 12, seed=5)
    words = [C3, "eval", "-m", os.path.join(folder, "bar1False"), pages, "-o", os.path.join(folder, "eval"), "-threads",
             "1", "-max_new", "8", "-batch", "4"]
    code, text, _ = seen(words)
    bars = re.findall(r"\r\x1b\[K\[[= ]{20}\] (\d+) % \| (?:([\w ]+) left \| )?([^\r\n\x1b]*)", text)
    phases = list(dict.fromkeys(what.split(":")[0].split(",")[0] for _, _, what in bars))
    case("eval shows decoding, both teacher-forced passes, each control and what is decoded for it", code == 0 and
         [p for p in phases if p != "comparing"] ==
         ["decoding", "teacher-forced", "the decoder alone", "control", "decoding swapped latents",
          "decoding mean latents", "decoding zero latents"], (code, phases))
    share = [int(percent) for percent, _, _ in bars]
    case("its bar goes forward, to the end", share == sorted(share) and share[0] < 5 and share[-1] > 90, share)
    case("with the time left from its first hundredth on", all(left for percent, left, _ in bars if int(percent) > 1) and
         "; all of it took " in text, bars)
    case("in 80 columns", 60 < widest(text) < COLUMNS, widest(text))
    code, text, out = seen(words, subprocess.PIPE)
    case("its table goes into a file alone", code == 0 and "char precision" in out and "\x1b" not in out, out[-500:])


with Folder() as tmp:
    training(tmp)
    waiting(tmp)
    evaluation(tmp)
done()
