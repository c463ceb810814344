// step.h: the pages of one step, packed as the device takes them. Every supervised row carries its weight in the step's
// loss, so a device batch may hold any of the step's pages: whole micro-batches while there is room, split between
// pages where one is too large (-fuse N), or as many pages as there is room for, whatever their micro-batch (-fuse auto
// on a GPU).
#ifndef LLMC_STEP_H
#define LLMC_STEP_H

#include "llmc/model/batch.h"
#include "llmc/model/cascade.h"
#include "llmc/data/loader.h"
#include "llmc/train/optimizer.h"
#include "llmc/train/tasks.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct StepConfig {
    const C3Config *model;
    const Template *prompt;
    const TaskMix *tasks; // the step's losses are asked for by task; NULL: they are not
    BatchRows most;       // what a device batch may hold
    BatchRows longest;    // page of the data: most is not below it
    int fuse;             // micro-batches a device batch, at most; 0: pages, whatever their micro-batch
    int b, g, ranks;
    int micro_norm; // -loss_norm micro: each micro-batch's mean has the same weight
} StepConfig;

// One step of this rank, on the host. Two of them take turns, so that one is packed while the device works on the
// other.
typedef struct StepPack {
    MicroBatch *micro; // (n) device batches
    int n;
    int rounds;                 // reductions of its gradients: n, or with ZeRO 2 the most of all ranks'
    uint64_t pages, supervised; // of the whole step, all ranks
    SetCount of_set[DATA_MAX_SETS];
    LoaderState after; // the loader's, once this step is done
    C3Flops flops;     // of this rank
    // memory
    Backend *b;
    void *block; // all micro-batches' blocks, for upload_async
    size_t capacity;
    uint64_t *page_ids, *sort_work;
    float *weight; // (b*g)
    uint8_t *task; // (b*g) C3Task of each page, where they are asked for
} StepPack;

int step_create(StepPack *p, const StepConfig *c, Backend *b, Error *err);
void step_free(StepPack *p);
// Packs what the loader gave; nothing of s is needed afterwards.
void step_pack(StepPack *p, const StepConfig *c, const LoaderStep *s);

// Queues the step's forward and backward passes and the reduction of its gradients; nothing waits for the device. With
// ZeRO 2 every device batch ends in collectives, in which a rank that has fewer takes part without a gradient.
void step_queue(const StepPack *p, C3 *m, Optimizer *o);

// Adds up the losses of this rank's rows by task, and how many they are; between c3_read_step and the next step_queue.
void step_task_losses(const StepPack *p, const C3 *m, double loss[C3_N_TASKS], double rows[C3_N_TASKS]);

// Adds the page to the sum and returns 1, or returns 0 when the sum would pass `most`.
int step_add_page(BatchRows *sum, BatchRows page, BatchRows most);

#ifdef __cplusplus
}
#endif
#endif
