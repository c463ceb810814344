// travel.c: see travel.h.
#include "llmc/weights/travel.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "llmc/base/alloc.h"
#include "llmc/base/file.h"
#include "llmc/base/json.h"
#include "llmc/text/tokenizer_json.h"
#include "llmc/weights/door.h"

enum { MAX_SMALL_BYTES = 1 << 22, MAX_CODE = 64 };
static const char config_name[] = "tokenizer_config.json";

static void note_left_out(Travel *t, const char *name, const char *why) {
    string_append(&t->notes, "%s%s is left out: %s", t->notes ? "; " : "", name, why);
}

// ---- reading -------------------------------------------------------------------------------------------------------

static int is_inside(const char *path, const char *folder) {
    size_t n = strlen(folder);
    return strncmp(path, folder, n) == 0 && path[n] == '/';
}

// 1 when a file of `folder` that resolves to `real` lies in the folder itself or, in a cache of the hub, whose
// snapshots/REVISION/NAME are links to blobs/HASH, among these blobs.
static int stays_inside(const char *real, const char *folder) {
    char home[PATH_MAX];
    if (!realpath(folder, home)) return 0;
    if (is_inside(real, home)) return 1;
    char *revision = strrchr(home, '/');
    if (!revision) return 0;
    *revision = 0;
    char *snapshots = strrchr(home, '/');
    if (!snapshots || strcmp(snapshots, "/snapshots") != 0) return 0;
    strcpy(snapshots, "/blobs"); // shorter than "/snapshots"
    return is_inside(real, home);
}

// The open file's bytes; a zero byte follows them.
static int read_all(TravelFile *f, int fd, const struct stat *st) {
    size_t at = 0, size = (size_t)st->st_size;
    ssize_t got = 1;
    f->data = alloc(size + 1, 1, "files beside the weights");
    for (; at < size && got != 0; at += got > 0 ? (size_t)got : 0) {
        got = read(fd, f->data + at, size - at);
        if (got < 0 && errno != EINTR) break;
    }
    f->data[at] = 0;
    f->size = size;
    f->mode = st->st_mode & 0777;
    return at == size ? 0 : -1;
}

// Reads the file at `real`, not waiting for a pipe's other end. Returns why it is left out; NULL: it was read.
static const char *read_source(TravelFile *f, const char *real, size_t most) {
    struct stat st;
    int fd = open(real, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    const char *why = fd < 0 || fstat(fd, &st) != 0 ? "it cannot be read"
                      : !S_ISREG(st.st_mode)        ? "not a regular file"
                      : (uint64_t)st.st_size > most ? "too large for a file of this name"
                      : read_all(f, fd, &st) != 0   ? "it cannot be read"
                                                    : NULL;
    if (why) free(f->data);
    if (fd >= 0) close(fd);
    return why;
}

static TravelFile *find_file(Travel *t, const char *name) {
    for (int i = 0; i < t->n; i++) {
        if (strcmp(t->files[i].name, name) == 0) return &t->files[i];
    }
    return NULL;
}

// Adds FOLDER/NAME if it exists and no file of that name was added before; the notes say why one is left out.
static void add_source_file(Travel *t, const char *folder, const char *name, size_t most) {
    char *path = string_format("%s/%s", folder, name), real[PATH_MAX];
    struct stat st;
    int there = lstat(path, &st) == 0, resolved = there && realpath(path, real) != NULL;
    free(path);
    if (!there || find_file(t, name)) return;
    TravelFile f = {0};
    const char *why = !resolved                                             ? "a link to nothing"
                      : !stays_inside(real, folder)                         ? "a link that leaves the folder"
                      : t->n == TRAVEL_MAX || strlen(name) >= sizeof f.name ? "too many files, or too long a name"
                                                                            : read_source(&f, real, most);
    if (why) {
        note_left_out(t, name, why);
        return;
    }
    snprintf(f.name, sizeof f.name, "%s", name);
    t->files[t->n++] = f;
}

// Adds a file from memory; data becomes the Travel's.
static void add_data(Travel *t, const char *name, char *data, size_t size, unsigned mode) {
    TravelFile *f = &t->files[t->n++];
    *f = (TravelFile){.data = data, .size = size, .mode = mode};
    snprintf(f->name, sizeof f->name, "%s", name);
}

static void remove_file(Travel *t, const char *name) {
    TravelFile *f = find_file(t, name);
    if (!f) return;
    free(f->data);
    *f = t->files[--t->n];
}

// ---- the tokenizer -------------------------------------------------------------------------------------------------

// Does this tokenizer_config.json ask for code that lies beside it?
static int needs_code(const TravelFile *f) {
    cJSON *json = NULL;
    int found = json_parse(&json, f->data, f->size, f->name, NULL) != 0 || json_find(json, "auto_map") != NULL;
    cJSON_Delete(json);
    return found;
}

static void add_config(Travel *t, const Tokenizer *tokenizer) {
    char *text;
    size_t n;
    if (find_file(t, config_name)) return;
    tokenizer_config_json(&text, &n, tokenizer);
    add_data(t, config_name, text, n, 0);
}

// The companions of a tokenizer.json that is saved unchanged.
static void add_companions(Travel *t, const char *path, int code) {
    static const char *const names[] = {config_name, "special_tokens_map.json", "added_tokens.json",
                                        "chat_template.jinja", "chat_template.json"};
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    if (strcmp(name, "tokenizer.json") != 0) return;
    char *folder = slash ? string_format("%.*s", (int)(slash - path + (slash == path)), path) : string_copy(".");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) add_source_file(t, folder, names[i], MAX_SMALL_BYTES);
    free(folder);
    const TravelFile *config = find_file(t, config_name);
    if (config && !code && needs_code(config)) remove_file(t, config_name);
}

// The tokenizer: the file it was read from (original), written anew (text), or both; see travel.h.
static int add_tokenizer(Travel *t, const Tokenizer *tokenizer, const char *path, int code, Error *err) {
    const int whole = tokenizer_base(tokenizer) == QWEN_BASE_RANKS;
    char *original, *text = NULL;
    size_t size, n;
    struct stat st;
    Error why;
    TRY(file_read(&original, &size, path, err));
    const unsigned mode = stat(path, &st) == 0 ? st.st_mode & 0777 : 0;
    const int json = original[strspn(original, " \n\r\t")] == '{';
    if (!(json && whole) && tokenizer_json(&text, &n, tokenizer, &why) != 0)
        note_left_out(t, "tokenizer.json for transformers", why.text);
    if (text) add_data(t, "tokenizer.json", text, n, 0);
    if (!text || (whole && !json)) add_data(t, json ? "tokenizer.json" : "qwen.tiktoken", original, size, mode);
    else free(original);
    if (json && whole) add_companions(t, path, code);
    if (text || whole) add_config(t, tokenizer);
    return 0;
}

// ---- the source ----------------------------------------------------------------------------------------------------

static int by_name(const struct dirent **a, const struct dirent **b) { return strcmp((*a)->d_name, (*b)->d_name); }

static int is_code(const struct dirent *e) {
    size_t n = strlen(e->d_name);
    return e->d_name[0] != '.' && n >= 4 && strcmp(e->d_name + n - 3, ".py") == 0;
}

// Does the source's file say that it is one of ours, of this version or another? It is not missed then.
static int is_door(const char *source, const char *name) {
    char *path = string_format("%s/%s", source, name), start[64] = "", ours[80];
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(start, 1, sizeof start - 1, f) : 0;
    int wanted = snprintf(ours, sizeof ours, "\"\"\"%s: ", name);
    if (f) fclose(f);
    free(path);
    return n >= (size_t)wanted && strncmp(start, ours, (size_t)wanted) == 0;
}

// Our own code, where none of these names is taken.
static void add_door(Travel *t) {
    for (int i = 0; i < DOOR_FILES; i++) {
        if (t->auto_map || find_file(t, door_file(i).name)) return;
    }
    for (int i = 0; i < DOOR_FILES; i++) {
        DoorFile f = door_file(i);
        char *copy = alloc(f.size, 1, "files beside the weights");
        memcpy(copy, f.text, f.size);
        add_data(t, f.name, copy, f.size, 0);
    }
    t->auto_map = string_copy(door_auto_map);
}

// The source's *.py, in order, at most MAX_CODE of them.
static int add_code(Travel *t, const char *source, int code, Error *err) {
    struct dirent **files;
    int n = scandir(source, &files, is_code, by_name);
    if (n < 0) return error_set(err, "%s: cannot list: %s", source, strerror(errno));
    for (int i = 0; i < n; i++) {
        const char *name = files[i]->d_name;
        if (i < MAX_CODE && code) add_source_file(t, source, name, MAX_SMALL_BYTES);
        else if (i < MAX_CODE && !is_door(source, name)) note_left_out(t, name, "code (-keep_code takes it along)");
        free(files[i]);
    }
    free(files);
    return 0;
}

// Loaders find code only through config.json, and the authors' tokenizer only through tokenizer_config.json.
static int add_maps(Travel *t, const char *source, Error *err) {
    char *path = string_format("%s/config.json", source);
    cJSON *json = NULL;
    int bad = file_exists(path) ? json_read(&json, path, MAX_SMALL_BYTES, err) : 0;
    const cJSON *map = json_find(json, "auto_map"), *type = json_find(json, "model_type");
    if (map && cJSON_IsString(type) && strcmp(type->valuestring, "C3") == 0) t->auto_map = cJSON_PrintUnformatted(map);
    cJSON_Delete(json);
    free(path);
    if (bad) return -1;
    Travel other = {0};
    add_source_file(&other, source, config_name, MAX_SMALL_BYTES);
    if (other.n && needs_code(other.files)) {
        remove_file(t, config_name);
        t->files[t->n++] = other.files[0];
        other.n = 0;
    }
    travel_close(&other);
    return 0;
}

static int add_source(Travel *t, const Tokenizer *tokenizer, const char *source, int code, Error *err) {
    // its token ids are those of the whole vocabulary
    if (!tokenizer || tokenizer_base(tokenizer) == QWEN_BASE_RANKS)
        add_source_file(t, source, "generation_config.json", MAX_SMALL_BYTES);
    if (code) TRY(add_maps(t, source, err));
    return add_code(t, source, code, err);
}

// ---- all -----------------------------------------------------------------------------------------------------------

static void note_files(Travel *t) {
    char *left_out = t->notes;
    t->notes = NULL;
    for (int i = 0; i < t->n; i++)
        string_append(&t->notes, "%s%s%s", i ? ", " : "", t->files[i].name, t->files[i].mode ? "" : " (written)");
    if (t->auto_map) string_append(&t->notes, "%sauto_map", t->notes ? ", " : "");
    if (left_out) string_append(&t->notes, "%s%s", t->notes ? "; " : "", left_out);
    free(left_out);
}

int travel_open(Travel *t, const Tokenizer *tokenizer, const char *tokenizer_path, const char *source, int code,
                int door, Error *err) {
    *t = (Travel){0};
    int bad = tokenizer ? add_tokenizer(t, tokenizer, tokenizer_path, code, err) : 0;
    if (!bad && source) bad = add_source(t, tokenizer, source, code, err);
    if (!bad && door) add_door(t);
    note_files(t);
    if (bad) travel_close(t);
    return bad;
}

static int write_file(const TravelFile *f, const char *folder, Error *err) {
    char *path = string_format("%s/%s", folder, f->name);
    int bad = file_write_whole(path, f->data, f->size, f->mode, err);
    free(path);
    return bad;
}

static int write_auto_map(const char *map, const char *folder, Error *err) {
    char *path = string_format("%s/config.json", folder);
    cJSON *json = NULL;
    int bad = json_read(&json, path, MAX_SMALL_BYTES, err);
    if (!bad) {
        cJSON_AddRawToObject(json, "auto_map", map);
        bad = json_write(json, path, err);
    }
    cJSON_Delete(json);
    free(path);
    return bad;
}

int travel_write(const Travel *t, const char *folder, Error *err) {
    if (!t) return 0;
    for (int i = 0; i < t->n; i++) TRY(write_file(&t->files[i], folder, err));
    return t->auto_map ? write_auto_map(t->auto_map, folder, err) : 0;
}

void travel_close(Travel *t) {
    for (int i = 0; i < t->n; i++) free(t->files[i].data);
    free(t->auto_map);
    free(t->notes);
    *t = (Travel){0};
}
