// info.c: c3 info, see info.h.
#include "llmc/commands/info.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "llmc/base/alloc.h"
#include "llmc/train/checkpoint.h"
#include "llmc/weights/run.h"
#include "llmc/weights/weights.h"
#include "llmc/base/clean.h"
#include "llmc/base/file.h"
#include "llmc/base/format.h"
#include "llmc/commands/command.h"
#include "llmc/weights/latents.h"
#include "llmc/weights/safetensors.h"
#include "llmc/data/shard.h"

static void row(FILE *out, const char *name, const char *text) { fprintf(out, "  %-14s %s\n", name, clean(text)); }

static void row_hex(FILE *out, const char *name, const uint8_t bytes[32]) {
    char hex[65];
    for (int i = 0; i < 32; i++) snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
    row(out, name, hex);
}

// ---- models --------------------------------------------------------------------------------------------------------

static void print_stack(FILE *out, const char *name, const Qwen2Config *c, double parameters) {
    char count[32];
    fprintf(out, "  %-14s %s parameters: %d layers, width %d, heads %d/%d x %d, mlp %d, vocabulary %d, positions %d\n",
            name, format_count(count, parameters), c->L, c->D, c->NH, c->KV, c->HS, c->F, c->V, c->max_positions);
    fprintf(out, "  %-14s rope theta %g, norm eps %g, head %s\n", "", (double)c->rope_theta, (double)c->rms_eps,
            c->tied ? "is the embedding" : "of its own");
}

// "F32 24 tensors, 1.2 MB" for each type of the files.
static int print_files(FILE *out, const char *name, const char *folder, Error *err) {
    SafeTensors *s;
    TRY(safetensors_open(&s, folder, err));
    int n = safetensors_count(s);
    for (int i = 0; i < n; i++) {
        const char *type = safetensors_at(s, i)->type;
        int count = 0, seen = 0;
        double bytes = 0;
        for (int k = 0; k < n && !seen; k++) {
            const SafeTensor *t = safetensors_at(s, k);
            if (t->type != type) continue; // names of types are shared
            seen = k < i;
            count++;
            bytes += (double)t->bytes;
        }
        char size[32];
        if (!seen) fprintf(out, "  %-14s %s: %d tensors, %s\n", name, type, count, format_bytes(size, bytes));
    }
    safetensors_close(s);
    return 0;
}

static int print_shapes(FILE *out, const C3Config *c, Error *err) {
    C3Params p;
    TRY(params_build(&p, c, 1, err));
    char a[32], b[32];
    print_stack(out, "encoder", &c->enc, params_owned(&p.table, OWNER_ENCODER));
    print_stack(out, "decoder", &c->dec, params_owned(&p.table, OWNER_DECODER));
    fprintf(out, "  %-14s %s parameters: %d latents a page, projector %d -> %d\n", "cascade",
            format_count(a, params_owned(&p.table, OWNER_CASCADE)), c->latents, c->enc.D, c->dec.D);
    if (c->window) fprintf(out, "  %-14s of %d tokens, %d latents each\n", "windows", c->window, c->latents);
    fprintf(out, "  %-14s %s parameters\n", "total", format_count(b, (double)p.table.parameters));
    params_free(&p);
    return 0;
}

static int print_training(FILE *out, const char *folder, Error *err) {
    TrainState s;
    TRY(checkpoint_read_state(&s, folder, err));
    char tokens[32];
    fprintf(out, "training\n  %-14s %lld\n", "step", (long long)s.step);
    if (s.step > 0) fprintf(out, "  %-14s %.4f\n", "last loss", (double)s.losses[s.step - 1]);
    row(out, "tokens seen", format_count(tokens, s.tokens_seen));
    fprintf(out, "  %-14s seed %llu, epoch %llu, page %llu, data %08x\n", "loader", (unsigned long long)s.loader.seed,
            (unsigned long long)s.loader.epoch, (unsigned long long)s.loader.position, s.loader.dataset);
    for (int i = 0; i < s.n_sets; i++)
        fprintf(out, "  %-14s %.0f text tokens seen\n", clean(s.set_names[i]), s.set_tokens[i]);
    if (s.best.is_known)
        fprintf(out, "  %-14s %.4f, at step %lld, %lld validations ago\n", "lowest loss", s.best.loss,
                (long long)s.best.step, (long long)s.best.since);
    row_hex(out, "tokenizer", s.tokenizer);
    row(out, "settings", s.settings);
    train_state_free(&s);
    return 0;
}

static int print_c3(FILE *out, const char *folder, const char *llm1, Error *err) {
    C3Config c;
    TRY(config_read_c3(&c, folder, err));
    fprintf(out, "%s: a C3 model\n", clean(folder));
    TRY(print_shapes(out, &c, err));
    row(out, "template", c.template_name);
    fprintf(
        out,
        "  %-14s %d base tokens; <|endoftext|> %d, <|im_start|> %d, <|im_end|> %d, <img> %d, </img> %d, <imgpad> %d\n",
        "vocabulary", c.base_vocab, c.specials.endoftext, c.specials.im_start, c.specials.im_end, c.specials.img,
        c.specials.img_end, c.specials.img_pad);
    if (c.tasks & ~(1u << C3_REPEAT)) {
        fprintf(out, "  %-14s", "tasks");
        for (int i = 0; i < C3_N_TASKS; i++)
            if (c.tasks >> i & 1) fprintf(out, " %s", c3_task_names[i]);
        fprintf(out, "\n");
    }
    if (c.trained_tokens[1])
        fprintf(out, "  %-14s on pages of %d to %d tokens\n", "trained", c.trained_tokens[0], c.trained_tokens[1]);
    for (int i = 0; i < c.n_trained_latents; i++)
        fprintf(out, "%s%d%s", i ? ", " : "                 with ", c.trained_latents[i],
                i == c.n_trained_latents - 1 ? " latents a page\n" : "");
    TRY(print_files(out, "files", folder, err));
    return print_files(out, "files of llm1", llm1, err);
}

static int print_qwen2(FILE *out, const char *folder, Error *err) {
    C3Config c = {.latents = 1, .dec = {0}};
    TRY(config_read_qwen2(&c.enc, folder, err));
    c.dec = c.enc; // counted with its head, where it has one of its own
    C3Params p;
    TRY(params_build(&p, &c, 1, err));
    fprintf(out, "%s: a plain Qwen2 model\n", clean(folder));
    print_stack(out, "stack", &c.dec, params_owned(&p.table, OWNER_DECODER));
    params_free(&p);
    return print_files(out, "files", folder, err);
}

static int print_folder(FILE *out, const char *folder, Error *err) {
    char *llm1 = string_format("%s/llm1", folder), *trainer = string_format("%s/trainer", folder), hex[65];
    int bad = file_exists(llm1) ? print_c3(out, folder, llm1, err) : print_qwen2(out, folder, err);
    if (!bad) bad = checkpoint_fingerprint(hex, folder, err);
    if (!bad) row(out, "fingerprint", hex);
    if (!bad && file_exists(trainer)) bad = print_training(out, folder, err);
    free(trainer);
    free(llm1);
    return bad;
}

// ---- latents -------------------------------------------------------------------------------------------------------

// A safetensors file outside a folder is one of latents: its JSON begins at byte 8.
static int looks_like_latents(const char *path) {
    FileMap map;
    if (file_map(&map, path, NULL) != 0) return 0;
    int yes = map.size > 8 && map.data[8] == '{';
    file_unmap(&map);
    return yes;
}

static int print_latents(FILE *out, const char *path, Error *err) {
    LatentFile f;
    char text[32];
    double tokens = 0;
    TRY(latents_read(&f, path, err));
    for (int i = 0; i < f.n_pages; i++) tokens += f.pages[i].tokens;
    fprintf(out, "%s: latents, %s of them\n", clean(path), format_bytes(text, (double)latents_bytes(&f)));
    fprintf(out, "  %-14s %s in ", "pages", format_count(text, f.n_pages));
    fprintf(out, "%s document%s\n", format_count(text, f.n_documents), f.n_documents == 1 ? "" : "s");
    if (f.n_windows > f.n_pages) fprintf(out, "  %-14s %s\n", "windows", format_count(text, f.n_windows));
    fprintf(out, "  %-14s %d of %d numbers a %s, %s\n", "latents", f.latents, f.width,
            f.n_windows > f.n_pages ? "window" : "page", f.dtype == DTYPE_F32 ? "fp32" : "bf16");
    fprintf(out, "  %-14s %s, %.1f a latent\n", "tokens", format_count(text, tokens), tokens / f.n_windows / f.latents);
    row(out, "model", f.model);
    row(out, "checksum", "right");
    latents_free(&f);
    return 0;
}

// ---- shards --------------------------------------------------------------------------------------------------------

static int print_shard(FILE *out, const char *path, int check, Error *err) {
    Shard s;
    if (looks_like_latents(path)) return print_latents(out, path, err);
    TRY(shard_open(&s, path, err));
    if (check && shard_verify(&s, err) != 0) {
        shard_close(&s);
        return -1;
    }
    uint64_t longest = 0, own_answers = 0, prompts = 0;
    for (uint64_t i = 0; i < s.pages; i++) {
        ShardPage p = shard_page(&s, i);
        if (p.answer_length > longest) longest = p.answer_length;
        own_answers += p.answer != p.context;
        prompts += p.prompt_length > 0;
    }
    char count[32], size[32];
    fprintf(out, "%s: a token shard, %s\n", clean(path), format_bytes(size, (double)s.map.size));
    fprintf(out, "  %-14s %llu, the longest of %llu tokens\n", "pages", (unsigned long long)s.pages,
            (unsigned long long)longest);
    fprintf(out, "  %-14s %s, %.0f a page\n", "tokens", format_count(count, (double)s.tokens),
            s.pages ? (double)s.tokens / (double)s.pages : 0.0);
    if (own_answers)
        fprintf(out, "  %-14s %llu pages have an answer of their own\n", "answers", (unsigned long long)own_answers);
    if (prompts)
        fprintf(out, "  %-14s %llu pages have a prompt of their own\n", "prompts", (unsigned long long)prompts);
    fprintf(out, "  %-14s %u ids\n", "vocabulary", s.vocab);
    row_hex(out, "tokenizer", s.fingerprint);
    if (s.set.count) fprintf(out, "  %-14s shard %u of %u that belong together\n", "set", s.set.index + 1, s.set.count);
    fprintf(out, "  %-14s %s; the shard's is %08x\n", "checksums",
            s.trusted ? "not computed, an earlier check is remembered (-check computes them)" : "right", s.crc);
    shard_close(&s);
    return 0;
}

// The folder a path means (of a run, its newest checkpoint), malloc'ed and held; NULL: the path is a file.
static int resolve(char **folder, int *hold, const char *path, Error *err) {
    struct stat st;
    *folder = NULL;
    *hold = 0;
    if (stat(path, &st) != 0)
        return error_set(err, "%s: is not there (hint: a model folder, a run, or a .bin shard)", path);
    if (!S_ISDIR(st.st_mode)) return 0;
    if (checkpoint_hold(folder, hold, path, NULL) != 0) *folder = string_copy(path); // what it lacks is reported later
    return 0;
}

int info_print(FILE *out, const char *path, int check, Error *err) {
    char *folder;
    int hold;
    TRY(resolve(&folder, &hold, path, err));
    if (!folder) return print_shard(out, path, check, err);
    int bad = print_folder(out, folder, err);
    if (!bad && check) bad = info_check_folder(out, folder, err);
    checkpoint_release(&hold);
    free(folder);
    return bad;
}

// ---- the command ---------------------------------------------------------------------------------------------------

static int check_too;

static void options(OptionTable *t) {
    const Option rows[] = {
        {.help = "Depth"},
        {OPTION_FLAG("check", &check_too, "read everything: shapes, NaNs, sizes, checksums")},
        {0},
    };
    cli_add(t, rows);
}

static int run(const char *const *words, int n, Error *err) {
    for (int i = 0; i < n; i++) TRY(info_print(stdout, words[i], check_too, err));
    return 0;
}

const Command command_info = {
    .name = "info",
    .what = "say what lies in a model's folder or a shard, and whether it is sound",
    .usage = "[-check] PATH...: what lies in a model's folder, a run's folder or a shard",
    .example = "c3 info -check runs/demo",
    .word = "folder or file",
    .many = 1,
    .options = options,
    .run = run,
};
