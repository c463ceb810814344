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

#include "llmc/base/file.h"
#include "llmc/base/json.h"
#include "llmc/text/tokenizer_json.h"
#include "llmc/text/vocabulary.h" // VOCABULARY_MAX_BYTES

enum { MAX_SMALL_BYTES = 1 << 22, MAX_CODE = 64 };
static const char config_name[] = "tokenizer_config.json";

static int no_memory(Error *err) { return error_set(err, "files that travel along: out of memory"); }

// ---- what is said --------------------------------------------------------------------------------------------------

static int say(Travel *t, const char *name, const char *how, Error *err) {
    return string_append(&t->notes, "%s%s%s", t->notes ? ", " : "", name, how) != 0 ? no_memory(err) : 0;
}

static int say_left_out(Travel *t, const char *name, const char *why, Error *err) {
    return string_append(&t->notes, "%s%s is left out: %s", t->notes ? "; " : "", name, why) != 0 ? no_memory(err) : 0;
}

// ---- reading -------------------------------------------------------------------------------------------------------

static int is_inside(const char *path, const char *folder) {
    size_t n = strlen(folder);
    return strncmp(path, folder, n) == 0 && path[n] == '/';
}

// A file of `folder`, where `real` is what it resolves to: inside the folder itself, or, in a cache of the hub, whose
// snapshots/REVISION/NAME are links to blobs/HASH, among these blobs.
static int stays(const char *real, const char *folder) {
    char home[PATH_MAX];
    if (!realpath(folder, home)) return 0;
    if (is_inside(real, home)) return 1;
    char *revision = strrchr(home, '/');
    if (!revision) return 0;
    *revision = 0;
    char *snapshots = strrchr(home, '/');
    if (!snapshots || strcmp(snapshots, "/snapshots") != 0) return 0;
    strcpy(snapshots, "/blobs"); // shorter than what stood there
    return is_inside(real, home);
}

static int read_all(int fd, char *data, size_t size) {
    for (size_t at = 0; at < size;) {
        ssize_t got = read(fd, data + at, size - at);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return -1; // it was cut since it was measured
        at += (size_t)got;
    }
    return 0;
}

// The file at `real`, opened without waiting for a pipe's other end. *why: the reason it cannot travel.
static int take(TravelFile *f, const char *real, size_t most, const char **why) {
    struct stat st;
    int fd = open(real, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    *why = fd < 0 || fstat(fd, &st) != 0 ? "it cannot be read"
           : !S_ISREG(st.st_mode)        ? "not a regular file"
           : (uint64_t)st.st_size > most ? "too large for what its name says"
           : !(f->data = malloc((size_t)st.st_size + 1)) || read_all(fd, f->data, (size_t)st.st_size) != 0
               ? "it cannot be read"
               : NULL;
    if (!*why) {
        f->size = (size_t)st.st_size;
        f->data[f->size] = 0;
        f->mode = st.st_mode & 0777;
    } else {
        free(f->data);
        f->data = NULL;
    }
    if (fd >= 0) close(fd);
    return *why ? -1 : 0;
}

static TravelFile *find(Travel *t, const char *name) {
    for (int i = 0; i < t->n; i++) {
        if (strcmp(t->files[i].name, name) == 0) return &t->files[i];
    }
    return NULL;
}

// FOLDER/NAME, where it is there and nothing of that name has come before. What cannot travel is said.
static int add(Travel *t, const char *folder, const char *name, size_t most, Error *err) {
    char *path = string_format("%s/%s", folder, name), real[PATH_MAX];
    struct stat st;
    const char *why = NULL;
    if (!path) return no_memory(err);
    int there = lstat(path, &st) == 0, resolved = there && realpath(path, real) != NULL;
    free(path);
    if (!there || find(t, name)) return 0;
    TravelFile f = {0};
    if (!resolved) why = "a link to nothing";
    else if (!stays(real, folder)) why = "a link that leaves the folder";
    else if (t->n == TRAVEL_MAX || strlen(name) >= sizeof f.name) why = "too many files, or too long a name";
    if (why || take(&f, real, most, &why) != 0) return say_left_out(t, name, why, err);
    snprintf(f.name, sizeof f.name, "%s", name);
    t->files[t->n++] = f;
    return 0;
}

// A file of our own making; data becomes the Travel's.
static int add_written(Travel *t, const char *name, char *data, size_t size) {
    TravelFile *f = &t->files[t->n++];
    *f = (TravelFile){.data = data, .size = size};
    snprintf(f->name, sizeof f->name, "%s", name);
    return 0;
}

static void drop(Travel *t, const char *name) {
    TravelFile *f = find(t, name);
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

static int write_config(Travel *t, const Tokenizer *tokenizer, Error *err) {
    char *text;
    size_t n;
    if (find(t, config_name)) return 0;
    TRY(tokenizer_config_json(&text, &n, tokenizer, err));
    return add_written(t, config_name, text, n);
}

// The file the tokenizer was read from, under a name that is found again.
static int add_verbatim(Travel *t, const char *path, const char *name, Error *err) {
    FileMap map;
    struct stat st;
    TRY(file_map(&map, path, err));
    const size_t size = map.size;
    char *data = malloc(size + 1);
    if (data) memcpy(data, map.data, size);
    file_unmap(&map);
    if (!data || stat(path, &st) != 0) {
        free(data);
        return no_memory(err);
    }
    add_written(t, name, data, size);
    t->files[t->n - 1].mode = st.st_mode & 0777;
    return 0;
}

// The companions of a tokenizer.json that travels as it is.
static int add_companions(Travel *t, const char *path, int code, Error *err) {
    static const char *const names[] = {config_name, "special_tokens_map.json", "added_tokens.json",
                                        "chat_template.jinja", "chat_template.json"};
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    if (strcmp(name, "tokenizer.json") != 0) return 0;
    char *folder = slash ? string_format("%.*s", (int)(slash - path + (slash == path)), path) : strdup(".");
    int bad = folder ? 0 : no_memory(err);
    for (size_t i = 0; i < sizeof names / sizeof *names && !bad; i++)
        bad = add(t, folder, names[i], MAX_SMALL_BYTES, err);
    free(folder);
    const TravelFile *config = find(t, config_name);
    if (!bad && config && !code && needs_code(config)) drop(t, config_name);
    return bad;
}

static int is_json(const char *path, Error *err) {
    FileMap map;
    TRY(file_map(&map, path, err));
    size_t i = 0;
    while (i < map.size && strchr(" \n\r\t", map.data[i])) i++;
    int yes = i < map.size && map.data[i] == '{';
    file_unmap(&map);
    return yes;
}

static int add_tokenizer(Travel *t, const Tokenizer *tokenizer, const char *path, int code, Error *err) {
    const int json = is_json(path, err), whole = tokenizer_base(tokenizer) == QWEN_BASE_RANKS;
    if (json < 0) return -1;
    if (json && whole) {
        TRY(add_verbatim(t, path, "tokenizer.json", err));
        TRY(add_companions(t, path, code, err));
        return write_config(t, tokenizer, err);
    }
    char *text;
    size_t n;
    Error why;
    if (tokenizer_json(&text, &n, tokenizer, &why) == 0) {
        add_written(t, "tokenizer.json", text, n);
        TRY(write_config(t, tokenizer, err));
        return whole ? add_verbatim(t, path, "qwen.tiktoken", err) : 0;
    }
    TRY(say_left_out(t, "tokenizer.json for transformers", why.text, err));
    return add_verbatim(t, path, json ? "tokenizer.json" : "qwen.tiktoken", err);
}

// ---- the source ----------------------------------------------------------------------------------------------------

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

// The names of a folder's *.py, sorted, of which it looks at MAX_CODE at most.
static int list_code(char *names[MAX_CODE], int *n, const char *folder, Error *err) {
    DIR *dir = opendir(folder);
    *n = 0;
    if (!dir) return error_set(err, "%s: cannot list: %s", folder, strerror(errno));
    for (struct dirent *e; *n < MAX_CODE && (e = readdir(dir));) {
        size_t length = strlen(e->d_name);
        if (e->d_name[0] == '.' || length < 4 || strcmp(e->d_name + length - 3, ".py") != 0) continue;
        if (!(names[*n] = strdup(e->d_name))) break;
        ++*n;
    }
    closedir(dir);
    qsort(names, (size_t)*n, sizeof *names, by_name);
    return 0;
}

static int add_code(Travel *t, const char *source, int code, Error *err) {
    char *names[MAX_CODE];
    int n, bad;
    TRY(list_code(names, &n, source, err));
    bad = 0;
    for (int i = 0; i < n; i++) {
        if (!bad)
            bad = code ? add(t, source, names[i], MAX_SMALL_BYTES, err)
                       : say_left_out(t, names[i], "code (-keep_code takes it along)", err);
        free(names[i]);
    }
    return bad;
}

// Code is only found when config.json names it; the authors' tokenizer when tokenizer_config.json does.
static int add_maps(Travel *t, const char *source, Error *err) {
    char *path = string_format("%s/config.json", source);
    cJSON *json = NULL;
    int bad = !path ? no_memory(err) : file_exists(path) ? json_read(&json, path, MAX_SMALL_BYTES, err) : 0;
    const cJSON *map = json_find(json, "auto_map"), *type = json_find(json, "model_type");
    if (!bad && map && cJSON_IsString(type) && strcmp(type->valuestring, "C3") == 0) {
        t->auto_map = cJSON_PrintUnformatted(map);
        if (!t->auto_map) bad = no_memory(err);
    }
    cJSON_Delete(json);
    free(path);
    Travel other = {0};
    if (!bad) bad = add(&other, source, config_name, MAX_SMALL_BYTES, err);
    if (!bad && other.n && needs_code(other.files)) {
        drop(t, config_name);
        t->files[t->n++] = other.files[0];
        other.n = 0;
    }
    travel_close(&other);
    return bad;
}

static int add_source(Travel *t, const Tokenizer *tokenizer, const char *source, int code, Error *err) {
    // of another vocabulary its numbers would be wrong
    if (!tokenizer || tokenizer_base(tokenizer) == QWEN_BASE_RANKS)
        TRY(add(t, source, "generation_config.json", MAX_SMALL_BYTES, err));
    if (code) TRY(add_maps(t, source, err));
    return add_code(t, source, code, err);
}

// ---- all -----------------------------------------------------------------------------------------------------------

int travel_open(Travel *t, const Tokenizer *tokenizer, const char *tokenizer_path, const char *source, int code,
                Error *err) {
    *t = (Travel){0};
    int bad = tokenizer ? add_tokenizer(t, tokenizer, tokenizer_path, code, err) : 0;
    if (!bad && source) bad = add_source(t, tokenizer, source, code, err);
    char *left_out = t->notes;
    t->notes = NULL;
    for (int i = 0; i < t->n && !bad; i++) bad = say(t, t->files[i].name, t->files[i].mode ? "" : " (written)", err);
    if (!bad && t->auto_map) bad = say(t, "auto_map", "", err);
    if (!bad && left_out) bad = string_append(&t->notes, "%s%s", t->notes ? "; " : "", left_out) ? no_memory(err) : 0;
    free(left_out);
    if (bad) travel_close(t);
    return bad;
}

static int write_file(const TravelFile *f, const char *folder, Error *err) {
    char *path = string_format("%s/%s", folder, f->name);
    FileWriter w;
    int bad = path ? file_create(&w, path, err) : no_memory(err);
    if (!bad) {
        if (f->mode && fchmod(fileno(w.stream), f->mode) != 0)
            bad = error_set(err, "%s: cannot set its mode: %s", path, strerror(errno));
        if (!bad) bad = file_write(&w, f->data, f->size, err);
        if (!bad) bad = file_commit(&w, err);
        else file_discard(&w);
    }
    free(path);
    return bad;
}

static int write_auto_map(const char *map, const char *folder, Error *err) {
    char *path = string_format("%s/config.json", folder);
    cJSON *json = NULL;
    int bad = path ? json_read(&json, path, MAX_SMALL_BYTES, err) : no_memory(err);
    if (!bad) bad = cJSON_AddRawToObject(json, "auto_map", map) ? json_write(json, path, err) : no_memory(err);
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
