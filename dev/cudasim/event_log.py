"""Reads the simulation's event log (SIM_LOG) and answers what must have ended before what could begin.

    log = EventLog("log.0")
    log.find(kind="kernel", name="backward_kernel", range="layer 3")     operations, in the order of issue
    log.must_precede(a, b)      has a to end before b may begin, whatever the speed of streams and hosts?
                                host=False: by the order of the streams alone, not because this run's host saw a end
    log.can_overlap(a, b)       neither must precede the other
    log.host_waits(a, b)        calls in which the host waited between the issues of a and b; polls=True: or asked

From a shell: python3 event_log.py LOG lists the operations, with what each waits for, and the host's waits between them.
"""
import json
import sys


class Op:
    def __init__(self, line, position, host):
        self.id, self.kind, self.name, self.stream = line["id"], line["kind"], line["name"], line["stream"]
        self.bytes, self.range = line["bytes"], line["range"]
        self.position = position  # of its issue, in the log
        self.run = self.done = None  # of its beginning and end
        self.needs = [i for i in [line["before"], *line["after"]] if i >= 0]
        self.needs_by_host = host  # what the host had seen end before it issued this

    def __repr__(self):
        where = f" in {self.range}" if self.range else ""
        return f"#{self.id} {self.kind} {self.name} on stream {self.stream}{where}"


class EventLog:
    def __init__(self, file):
        self.ops, self.waits = {}, []
        seen = ()
        with open(file) as f:
            for position, text in enumerate(f):
                line = json.loads(text)
                what = line["t"]
                if what == "issue":
                    self.ops[line["id"]] = Op(line, position, seen)
                elif what == "run":
                    self.ops[line["id"]].run = self.ops[line["id"]].done = position
                elif what == "done":
                    self.ops[line["id"]].done = position
                else:
                    if what == "wait" or line["ready"]:
                        seen = tuple(line["for"]) + seen
                    self.waits.append((position, what, line["call"], line["for"]))

    def find(self, kind=None, name=None, range=None, stream=None):
        """All that is given must match: kind and stream exactly; name by its beginning; range as a whole part of the path."""
        return [op for op in self.ops.values()
                if (kind is None or op.kind == kind) and (name is None or op.name.startswith(name)) and
                (range is None or f"/{range}/" in f"/{op.range}/") and (stream is None or op.stream == stream)]

    def must_precede(self, a, b, host=True):
        seen, todo = set(), [b.id]
        while todo:
            op = self.ops[todo.pop()]
            for i in (*op.needs, *(op.needs_by_host if host else ())):
                if i == a.id:
                    return True
                if i > a.id and i not in seen:  # what was issued before a cannot wait for it
                    seen.add(i)
                    todo.append(i)
        return False

    def can_overlap(self, a, b):
        return a.id != b.id and not self.must_precede(a, b) and not self.must_precede(b, a)

    def host_waits(self, a, b, polls=False):
        return [call for position, what, call, _ in self.waits
                if (what == "wait" or polls) and a.position < position < b.position]


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: event_log.py LOG")
    log = EventLog(sys.argv[1])
    lines = [(op.position, f"{op}, after {op.needs}") for op in log.ops.values()]
    lines += [(position, f"host {what}: {call} for {ops}") for position, what, call, ops in log.waits]
    for _, text in sorted(lines):
        print(text)


if __name__ == "__main__":
    main()
