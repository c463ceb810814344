// The event log: one JSON object a line, in the order in which the host did and the device did things.
//
//   {"t":"issue","id":7,"kind":"kernel","name":"add","stream":2,"before":6,"after":[5],"bytes":0,"range":"layer 3"}
//   {"t":"run","id":7}                 it begins;  {"t":"done","id":7}: it has ended (collectives only: others end at
//   once)
//   {"t":"wait","call":"cudaStreamSynchronize","for":[7]}            the host waited until these had ended
//   {"t":"poll","call":"cudaEventQuery","for":[7],"ready":false}     the host asked
// An operation waits for the one before it on its stream ("before", -1: none) and for those in "after". event_log.py,
// beside this folder, reads the log.
#include "runtime.h"
#include "fault.h"
#include <nvtx3/nvToolsExt.h>

namespace sim {

static std::vector<std::string> ranges; // NVTX, innermost last

static FILE *file() {
    static FILE *f;
    if (f || settings.log.empty()) return f;
    std::string name = settings.log;
    if (rank_of_process()) name += std::string(".") + rank_of_process();
    f = fopen(name.c_str(), "w");
    if (!f) fail("SIM_LOG: cannot write %s", name.c_str());
    setvbuf(f, nullptr, _IOLBF, 0); // complete to the last line, however the process ends
    return f;
}
static std::string quoted(const std::string &text) {
    std::string out = "\"";
    for (char c : text) {
        if (c == '"' || c == '\\') out += '\\';
        out += (unsigned char)c < 32 ? ' ' : c;
    }
    return out + "\"";
}
static std::string ids(const std::vector<OpRef> &ops) {
    std::string out = "[";
    for (auto &op : ops) out += (out.size() > 1 ? "," : "") + std::to_string(op->id);
    return out + "]";
}
// One number for each stream, in the order in which they were first used.
static int stream_number(const Stream *s) {
    static std::vector<const Stream *> known;
    for (size_t i = 0; i < known.size(); i++)
        if (known[i] == s) return (int)i;
    known.push_back(s);
    return (int)known.size() - 1;
}

void log_issue(const Op &op, const OpRef &before) {
    FILE *f = file();
    if (!f) return;
    std::string range;
    for (auto &r : ranges) range += (range.empty() ? "" : "/") + r;
    fprintf(f, "{\"t\":\"issue\",\"id\":%llu,\"kind\":\"%s\",\"name\":%s,\"stream\":%d,\"before\":%lld,\"after\":%s,",
            (unsigned long long)op.id, op.kind, quoted(op.name).c_str(), stream_number(op.stream),
            before ? (long long)before->id : -1ll, ids(op.after).c_str());
    fprintf(f, "\"bytes\":%zu,\"range\":%s}\n", op.bytes, quoted(range).c_str());
}
void log_run(const Op &op) {
    if (FILE *f = file()) fprintf(f, "{\"t\":\"run\",\"id\":%llu}\n", (unsigned long long)op.id);
}
void log_done(const Op &op) {
    if (FILE *f = file()) fprintf(f, "{\"t\":\"done\",\"id\":%llu}\n", (unsigned long long)op.id);
}
void log_wait(const char *what, const char *call, const std::vector<OpRef> &ops) {
    FILE *f = file();
    if (!f) return;
    bool ready = true;
    for (auto &op : ops) ready &= op->done;
    fprintf(f, "{\"t\":\"%s\",\"call\":\"%s\",\"for\":%s,\"ready\":%s}\n", what, call, ids(ops).c_str(),
            ready ? "true" : "false");
}

} // namespace sim

int nvtxRangePushA(const char *name) {
    CUDASIM_API;
    sim::ranges.push_back(name);
    return (int)sim::ranges.size() - 1;
}
int nvtxRangePop(void) {
    CUDASIM_API;
    if (!sim::ranges.empty()) sim::ranges.pop_back();
    return (int)sim::ranges.size();
}
