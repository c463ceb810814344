// c3.c: the companion tool: makes shards, writes pages back from their latents, evaluates a model.
//   c3 COMMAND [options]; every command explains itself with -h, or as c3 help COMMAND.
#include <stdio.h>

#include "llmc/backend.h"
#include "llmc/base/file.h" // the standard streams
#include "llmc/commands/command.h"

// A line for each command, in the order of the help; NAME is command_NAME of llmc/commands.
#define COMMANDS(LINE)                                                                                                 \
    LINE(tokenize)                                                                                                     \
    LINE(reconstruct)                                                                                                  \
    LINE(ask)                                                                                                          \
    LINE(compress)                                                                                                     \
    LINE(decompress)                                                                                                   \
    LINE(eval)                                                                                                         \
    LINE(info)                                                                                                         \
    LINE(extract)                                                                                                      \
    LINE(plan)

#define DECLARE(name) extern const Command command_##name;
#define ADDRESS(name) &command_##name,

COMMANDS(DECLARE)

static const Command *const commands[] = {COMMANDS(ADDRESS)};

int main(int argc, char **argv) {
    Error err;
    file_hold_standard();
    backend_cpu_prepare(argv);
    int code = commands_main(commands, sizeof commands / sizeof *commands, argc, argv);
    if (code != 0 || file_check_stdout(&err) == 0) return code;
    fprintf(stderr, "c3: %s\n", err.text);
    return 1;
}
