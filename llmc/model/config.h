// config.h: shapes of a Qwen2 stack and of a C3 model; config.json in and out; presets.
#ifndef LLMC_CONFIG_H
#define LLMC_CONFIG_H

#include "llmc/backend.h" // DType
#include "llmc/base/error.h"
#include "llmc/model/latents_mix.h"
#include "llmc/text/tokenizer.h" // SpecialTokens

#ifdef __cplusplus
extern "C" {
#endif

// One Qwen2 stack: V rows of the vocabulary, D width, L layers, NH query heads, KV key/value heads, HS head size, F MLP
// width.
typedef struct Qwen2Config {
    int V, D, L, NH, KV, HS, F;
    int max_positions;
    float rope_theta, rms_eps;
    int tied; // the head is the embedding
} Qwen2Config;

// What a decoder is asked to do with a context.
typedef enum C3Task {
    C3_REPEAT,   // write it again: the paper's
    C3_CONTINUE, // write what follows
    C3_INSTRUCT, // answer the page's own prompt
    C3_N_TASKS
} C3Task;
extern const char *const c3_task_names[C3_N_TASKS];
enum { CONFIG_MAX_LATENTS = 64 };

typedef struct C3Config {
    Qwen2Config enc, dec;
    int latents; // N
    SpecialTokens specials;
    int base_vocab;         // K of a vocabulary cut at K; 151643: the whole vocabulary
    char template_name[16]; // "c3" or "bare" (key c3_template, absent = "c3")
    int window;             // tokens that the encoder reads at a time (key c3_window, absent = 0: all)
    DType dtype;            // torch_dtype of the files
    int trained_tokens[2];  // fewest and most text tokens of the pages it was trained on (key c3_trained_tokens);
                            // 0, 0: unknown
    unsigned tasks;         // that it was trained on: bit 1 << C3Task (key c3_tasks, absent = ["repeat"]); 0: none yet
    int trained_latents[CONFIG_MAX_LATENTS]; // (n_trained_latents) numbers of latents it was trained with, ascending
    int n_trained_latents;                   // (key c3_trained_latents); 0: all N alone
} C3Config;

// Reads FOLDER/config.json of a plain Qwen2 model. Every number is checked (heads divide, sizes positive and sane).
int config_read_qwen2(Qwen2Config *c, const char *folder, Error *err);
// The same and *base (may be NULL), the base tokens of its vocabulary: 151643 where it has as many rows as Qwen2.5,
// else the K of a vocabulary cut at K, whose eos_token_id is K+2. Rows for all specials are not required.
int config_read_qwen2_base(Qwen2Config *c, int *base, const char *folder, Error *err);
// Reads FOLDER/config.json and FOLDER/llm1/config.json of a C3 checkpoint.
int config_read_c3(C3Config *c, const char *folder, Error *err);
// Writes FOLDER/config.json and FOLDER/llm1/config.json as the released code reads them.
int config_write_c3(const C3Config *c, const char *folder, Error *err);
// Notes that the model is also trained on pages of `least` to `most` text tokens.
void config_add_trained(C3Config *c, int least, int most);
// Notes that it is also trained with these numbers of latents; with no mix, with all N. Those above N, which was made
// smaller, are forgotten.
void config_add_latents(C3Config *c, const LatentsMix *mix);
// Was it trained with pages of n latents?
int config_knows_latents(const C3Config *c, int n);
// A plain Qwen2 config.json.
int config_write_qwen2(const Qwen2Config *c, DType dtype, const SpecialTokens *s, const char *folder, Error *err);
// Error when sizes are out of range or do not fit together.
int config_check_qwen2(const Qwen2Config *c, const char *where, Error *err);

// "demo", "tiny", "small", "medium", "paper"; vocab 0: the preset's own. Also sets latents and template.
int config_preset(C3Config *c, const char *name, int vocab, Error *err);
// Ids of the specials: K to K+5 for a vocabulary cut at K; C3's own for K = 151643.
SpecialTokens config_specials(int base_vocab);
// Error when windows do not fit the model: a window, <img> and the queries must have positions in the encoder; fewer
// tokens than latents would be no compression.
int config_check_window(const C3Config *c, const char *where, Error *err);
// Windows of a text of so many tokens, on average.
double config_windows(const C3Config *c, double tokens);
// Text tokens of the longest page a model has positions for, beside <img> and queries in the encoder, the template and
// latents (overhead: template_overhead) and the end mark in the decoder. Longer pages are neither trained on nor read.
// Of windows as many are counted as a text of that length can have; the encoder bounds a window, not the page.
int config_longest_page(const C3Config *c, int overhead);
// Embedding rows for such a vocabulary: K+6, or 151860.
int config_rows(int base_vocab);
// The inverse: K from the rows.
int config_base(int rows);

#ifdef __cplusplus
}
#endif
#endif
