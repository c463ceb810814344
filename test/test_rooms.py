#!/usr/bin/env python3
"""The rooms of llmc/: a file may include its own room and those above it in this list, never one below; the backends may
include the base and each other's contract alone; no circle between files. One case a room."""
import os
import re

from harness import ROOT, case, done

# From the top down. backend.h is the contract: every room from text on may use it, and it uses base alone.
ROOMS = ["base", "backend", "text", "data", "model", "weights", "infer", "train", "eval", "commands"]
BACKENDS = ["cpu", "cuda"]
MOST = 20  # subjects of a room: more cannot be kept in one's head
INCLUDE = re.compile(r'^\s*#include\s+"(llmc/[^"]+)"', re.M)


def room_of(path):
    """"base" of llmc/base/error.h; "backend" of llmc/backend.h."""
    parts = path.split("/")
    return parts[1] if len(parts) > 2 else "backend"


def sources():
    for folder, _, names in os.walk(os.path.join(ROOT, "llmc")):
        for name in sorted(names):
            if name.endswith((".c", ".h", ".cu", ".cuh", ".inc")):
                yield os.path.relpath(os.path.join(folder, name), ROOT)


def includes(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as f:
        return INCLUDE.findall(f.read())


def allowed(room):
    if room in BACKENDS:
        return ["base", "backend", room]
    return ROOMS[:ROOMS.index(room) + 1] + (BACKENDS if room == "backend" else [])


def circles(graph):
    """Files that include one another, by depth-first search."""
    state, found = {}, []

    def visit(path, above):
        state[path] = "open"
        for other in graph.get(path, []):
            if state.get(other) == "open":
                found.append(" -> ".join([*above[above.index(other):], path, other] if other in above else [path, other]))
            elif other not in state:
                visit(other, [*above, path])
        state[path] = "done"

    for path in graph:
        if path not in state:
            visit(path, [])
    return found


def main():
    graph = {path: includes(path) for path in sources()}
    rooms = sorted({room_of(path) for path in graph})
    case("every room is on the map", set(rooms) <= set(ROOMS + BACKENDS), sorted(set(rooms) - set(ROOMS + BACKENDS)))
    for room in [r for r in ROOMS + BACKENDS if r in rooms]:
        # llmc/backend.c opens the backends: the one place that knows them.
        wrong = [f"{path} includes {other}" for path in graph if room_of(path) == room for other in graph[path]
                 if room_of(other) not in allowed(room)]
        case(f"{room}: includes point one way", not wrong, "; ".join(wrong))
        subjects = {os.path.splitext(os.path.basename(p))[0] for p in graph if room_of(p) == room}
        case(f"{room}: at most {MOST} subjects", len(subjects) <= MOST, sorted(subjects))
    headers = {path: others for path, others in graph.items() if path.endswith((".h", ".cuh"))}
    case("no circle between headers", not circles(headers), circles(headers))
    planted = {"a.h": ["b.h"], "b.h": ["c.h"], "c.h": ["a.h"], "d.h": ["a.h"]}
    case("a planted circle is found", len(circles(planted)) == 1, circles(planted))
    missing = [f"{path} includes {other}" for path in graph for other in graph[path]
               if not os.path.exists(os.path.join(ROOT, other))]
    case("includes name files that exist", not missing, missing)
    done()


if __name__ == "__main__":
    main()
