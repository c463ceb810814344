#!/usr/bin/env python3
"""watch.py: TensorBoard's event files out of log.jsonl, while the run is under way.

    scripts/watch.py RUN [RUN...] [-once] [-wandb]

Then `tensorboard --logdir` on the folder above shows the runs side by side. The events of RUN go into
RUN/events.out.tfevents.0.c3, with the clock times of the log. log.jsonl stays the one source: what was written before is
compared with it, only what is missing is added, and where a resumed run wrote steps anew the old ones are purged.

It stops with the run, when the trainer has removed RUN/lock; with -once when what stands in the log is written. -wandb
also writes an offline run of Weights & Biases into RUN/wandb, the whole log anew at each start (written after wandb's
documentation, not tested).
"""
import argparse
import datetime
import fcntl
import os
import sys
import time

import runs

try:
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter
except ImportError as e:
    sys.exit(f"watch.py: tensorboard is missing: {e} (hint: .venv/bin/pip install tensorboard)")

EVENTS = "events.out.tfevents.0.c3"
SECONDS = 2.0  # between two looks at the log
RECORD_BYTES = 16  # around every record of an event file: its length and two checksums
TAIL = 4096  # bytes in front of the place read to, by which a rewritten log is noticed


# ---- the log --------------------------------------------------------------------------------------------------------


def seconds_of(line):
    """The wall clock's time of a line; 0, that is 1970, where it has none."""
    try:
        return datetime.datetime.fromisoformat(line["time"].replace("Z", "+00:00")).timestamp()
    except (AttributeError, KeyError, ValueError):
        return 0.0


def entry(text):
    """(step, time, {tag: number}) of a line of the log; None: there is nothing to show in it."""
    line = runs.parse(text)
    kind = "train" if "loss" in line else "val" if "val_loss" in line else None
    values = runs.numbers(line)
    step = values.pop("step", None)
    if kind is None or not isinstance(step, int) or not values:
        return None
    return step, seconds_of(line), {f"{kind}/{k.removeprefix('val_')}": float(v) for k, v in values.items()}


def key(step, seconds, values):
    """Says which line an event is of."""
    return step, seconds, next(iter(values)).split("/")[0]


class Log:
    """A log.jsonl that grows, and that a resumed run cuts."""

    def __init__(self, folder):
        self.path = os.path.join(folder, "log.jsonl")
        self.at, self.tail = 0, b""

    def read(self):
        """(whether it was read from its beginning, entries of the whole lines that came since)."""
        try:
            with runs.open_file(self.path, mode="rb") as f:
                f.seek(self.at - len(self.tail))
                anew = not self.at or f.read(len(self.tail)) != self.tail
                self.at = 0 if anew else self.at
                f.seek(self.at)
                data = f.read()
                data = data[:data.rfind(b"\n") + 1]  # a line may be half written
                self.at += len(data)
                f.seek(max(0, self.at - TAIL))
                self.tail = f.read(min(TAIL, self.at))
        except FileNotFoundError:
            return False, []
        return anew, [e for e in map(entry, data.decode("utf-8", "replace").splitlines()) if e]


# ---- where it goes --------------------------------------------------------------------------------------------------


class TensorBoard:
    """The event file of a run, to which events are only added."""

    def __init__(self, folder):
        self.file = open(os.path.join(folder, EVENTS), "ab")
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{runs.clean(self.file.name)}: another watch.py is writing there") from None
        self.written = []  # keys of the events that stand
        self.file.truncate(self.read())  # a record that was cut off
        self.records = RecordWriter(self.file)
        if not self.file.tell():
            self.add(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def read(self):
        """Collects what an earlier watch.py wrote; the bytes of it that are whole."""
        size = 0
        for record in RawEventFileLoader(self.file.name).Load():
            event = Event.FromString(record)
            size += len(record) + RECORD_BYTES
            if event.HasField("session_log"):
                self.written = [k for k in self.written if k[0] < event.step]
            elif event.HasField("summary"):
                self.written.append(key(event.step, event.wall_time, [v.tag for v in event.summary.value]))
        return size

    def add(self, event):
        self.records.write(event.SerializeToString())

    def purge(self, step, seconds):
        """What was written from this step on does not count."""
        self.add(Event(wall_time=seconds, step=step, session_log=SessionLog(status=SessionLog.START)))
        self.written = [k for k in self.written if k[0] < step]

    def compare(self, entries):
        """Purges from the first step on in which the log has changed; the entries that are to be written."""
        found = [key(*e) for e in entries]
        same = next((i for i, (a, b) in enumerate(zip(self.written, found)) if a != b), min(len(self.written), len(found)))
        if same < len(self.written):
            step = min(k[same][0] for k in (self.written, found) if same < len(k))
            self.purge(step, entries[same][1] if same < len(found) else time.time())
        return entries[len(self.written):]

    def follow(self, anew, entries):
        for step, seconds, values in self.compare(entries) if anew else entries:
            summary = Summary(value=[Summary.Value(tag=tag, simple_value=v) for tag, v in values.items()])
            self.add(Event(wall_time=seconds, step=step, summary=summary))
            self.written.append(key(step, seconds, values))
        self.file.flush()


class Wandb:
    """An offline run of Weights & Biases; a log that is read anew begins another one."""

    def __init__(self, folder):
        import wandb
        self.wandb, self.folder, self.run = wandb, folder, None

    def follow(self, anew, entries):
        if anew:
            if self.run:
                self.run.finish()
            self.run = self.wandb.init(mode="offline", dir=self.folder, name=os.path.basename(os.path.abspath(self.folder)))
        for step, seconds, values in entries:
            self.run.log(values | {"time": seconds}, step=step)


# ---- following ------------------------------------------------------------------------------------------------------


class Watched:
    def __init__(self, folder, kinds, once):
        if not os.path.isdir(folder) or once and not os.path.isfile(os.path.join(folder, "log.jsonl")):
            raise ValueError(f"{runs.clean(folder)}: no log.jsonl (hint: the folder that -o of train_c3 named)")
        self.folder, self.log, self.once = folder, Log(folder), once
        self.sinks = [kind(folder) for kind in kinds]

    def look(self):
        """Takes over what is new; true while more may come: the run has the lock, or has not begun."""
        more = not self.once and (os.path.exists(os.path.join(self.folder, "lock")) or not os.path.exists(self.log.path))
        news = self.log.read()
        for sink in self.sinks:
            sink.follow(*news)
        return more


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0].split(": ", 1)[1])
    parser.add_argument("run", nargs="+", help="folder that -o of train_c3 named")
    parser.add_argument("-once", action="store_true", help="write what is there and stop")
    parser.add_argument("-wandb", action="store_true", help="also an offline run of Weights & Biases")
    arguments = parser.parse_args()
    try:
        watched = [Watched(folder, [TensorBoard, Wandb][:1 + arguments.wandb], arguments.once) for folder in arguments.run]
        print("watch.py: writes " + ", ".join(runs.clean(os.path.join(w.folder, EVENTS)) for w in watched), flush=True)
        while any([w.look() for w in watched]):
            time.sleep(SECONDS)
    except ImportError as e:
        sys.exit(f"watch.py: wandb is missing: {e} (hint: .venv/bin/pip install wandb)")
    except (ValueError, OSError) as e:
        sys.exit(f"watch.py: {e}")
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
