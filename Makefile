# train_c3: builds what it can with what it finds, and says what it found.
#   make            train_c3 and c3; for GPUs as well where there is a CUDA toolkit (CUDA_HOME, PATH, /usr/local/cuda)
#   make NO_CUDA=1          for CPUs only
#   make GPU_ARCH="80 90"   for these GPUs; default: this machine's, or else (and for "all") sm_80, sm_90, sm_100
#   make tests      the C test programs        make test   scripts/test.sh
#   make fuzz       libFuzzer programs of the parsers, build/fuzz/NAME (clang; test/fuzz/run.sh runs one)
#   make SANITIZE=1 gcc's address and undefined-behaviour sanitizers, in build/sanitize
#   make docs       docs/options.md        make format  clang-format and ruff
#   make clean
CC      ?= gcc
ifeq ($(origin CC),default)
CC      := gcc
endif
BUILD   := build$(if $(SANITIZE),/sanitize)
.DEFAULT_GOAL := all

# ---- what is on this machine ----
have_header = $(shell printf '\#include <$(1)>\n' | $(CC) $(2) -E -x c - >/dev/null 2>&1 && echo 1)
ARCH    := $(shell uname -m)
MPICC   := $(shell command -v mpicc 2>/dev/null)
ifneq ($(MPICC),)
MPI_CFLAGS := $(shell $(MPICC) --showme:compile 2>/dev/null)
MPI_LIBS   := $(shell $(MPICC) --showme:link 2>/dev/null)
endif
HAVE_MPI   := $(if $(MPI_LIBS),$(call have_header,mpi.h,$(MPI_CFLAGS)))
HAVE_CJSON := $(call have_header,cjson/cJSON.h)
HAVE_UTF8PROC := $(call have_header,utf8proc.h)
HAVE_ZLIB  := $(call have_header,zlib.h)
HAVE_CRYPTO := $(call have_header,openssl/evp.h)
MISSING    := $(if $(HAVE_CJSON),,libcjson-dev) $(if $(HAVE_UTF8PROC),,libutf8proc-dev) $(if $(HAVE_ZLIB),,zlib1g-dev) \
              $(if $(HAVE_CRYPTO),,libssl-dev)

# ---- flags ----
WARN    := -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wvla -Wstrict-prototypes
comma   := ,
OPT     := $(if $(SANITIZE),-O1 -g -fsanitize=address$(comma)undefined -fno-omit-frame-pointer,-O3 -g)
BASE    := $(if $(filter x86_64,$(ARCH)),-march=x86-64-v3)
CFLAGS  += -std=c11 -D_GNU_SOURCE $(OPT) $(WARN) -fopenmp -ffp-contract=fast -fno-math-errno -fno-trapping-math -I.
CPPFLAGS += $(if $(HAVE_MPI),-DHAVE_MPI $(MPI_CFLAGS))
LDLIBS  += $(if $(HAVE_MPI),$(MPI_LIBS)) \
           -lcjson -lutf8proc -lz -lcrypto -lpthread -lm
LDFLAGS += -fopenmp $(if $(SANITIZE),-fsanitize=address$(comma)undefined)

# ---- sources ----
include llmc/cuda/toolkit.mk
# instruction-set variants of the CPU kernels: they add their objects to EXTRA_OBJ
include llmc/cpu/variants.mk
LIB_SRC := $(filter-out llmc/cuda/%,$(wildcard llmc/*.c llmc/*/*.c))
LIB_OBJ := $(LIB_SRC:%.c=$(BUILD)/%.o) $(EXTRA_OBJ)
TESTS   := $(patsubst test/%.c,$(BUILD)/test/%,$(wildcard test/*.c)) # test_*.c, and programs that Python tests drive
TESTS   += $(BUILD)/dev/make_random_checkpoint
BIN     := $(if $(SANITIZE),$(BUILD)/,)

.PHONY: all tests test fuzz bench docs format clean found
all: found $(BIN)train_c3 $(BIN)c3 $(if $(SANITIZE),,$(BUILD)/libc3text.so)
tests: $(TESTS)
test:
	bash scripts/test.sh
docs: all
	python3 dev/make_options.py
# The formatters of set-up (scripts/setup.sh test), so that all machines write the same.
format:
	git ls-files '*.c' '*.h' '*.cu' '*.cuh' '*.inc' '*.cpp' | xargs .venv/bin/clang-format -i
	.venv/bin/ruff check --fix .
bench: $(BUILD)/dev/bench_ops $(BUILD)/dev/cuda/bench

found:
	$(if $(strip $(MISSING)),$(error missing packages: $(strip $(MISSING)) (hint: bash scripts/setup.sh, or apt-get install $(strip $(MISSING)))))
	@echo "compiler $(CC) | MPI $(if $(HAVE_MPI),yes,no: one rank only) | CPU kernels $(CPU_VARIANTS)"
	@echo "CUDA $(CUDA_FOUND)"

$(BUILD)/libc3.a: $(LIB_OBJ)
	@rm -f $@
	ar rcs $@ $^

# The tokenizer for Python, data/corpus.py's.
TEXT_OBJ := $(patsubst %.c,$(BUILD)/pic/%.o,$(wildcard llmc/text/*.c) $(filter-out %/dist.c %/dist_watch.c,$(wildcard llmc/base/*.c)))
$(BUILD)/libc3text.so: $(TEXT_OBJ)
	$(CC) -shared -Wl,--no-undefined,--as-needed -o $@ $^ $(LDLIBS)
$(BUILD)/pic/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) $(BASE) -fPIC -MMD -MP -c $< -o $@

# What --version says of this build: an object of its own, linked into the two programs alone, so that another commit
# costs one line of C and two links.
COMMIT    := $(or $(if $(wildcard .git),$(shell git describe --tags --always --dirty 2>/dev/null)),of an unknown commit)
CUDA_FACT := $(if $(CUDA_OBJ),$(CUDA_VERSION) for $(CUDA_ARCH:%=sm_%)$(comma) NCCL $(if $(HAVE_NCCL),yes,no),no: built for CPUs)
FACTS     := const char build_commit[] = "$(COMMIT)", build_cuda[] = "$(CUDA_FACT)";
$(shell mkdir -p $(BUILD); printf '%s\n' '$(FACTS)' | cmp -s - $(BUILD)/facts.c || printf '%s\n' '$(FACTS)' >$(BUILD)/facts.c)
$(BUILD)/facts.o: $(BUILD)/facts.c
	$(CC) -std=c11 -c $< -o $@

# Programs that can use a GPU name the CUDA objects: nothing in the library asks for them (llmc/backend.c).
$(BIN)train_c3 $(BIN)c3 $(BUILD)/test/test_ops $(BUILD)/test/parity_check $(BUILD)/dev/bench_ops $(BUILD)/dev/cuda/bench: $(CUDA_OBJ) $(BUILD)/cuda.key
link = $(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(LDLIBS) $(if $(filter %/cuda.o,$^),$(CUDA_LIBS))

$(BIN)train_c3: $(BUILD)/train_c3.o $(BUILD)/facts.o $(BUILD)/libc3.a
	$(link)
$(BIN)c3: $(BUILD)/c3.o $(BUILD)/facts.o $(BUILD)/libc3.a
	$(link)
# C11 and C++17 at once: nvcc compiles it where there is one, else the C compiler.
$(BUILD)/train_c3.o: train_c3.cu $(BUILD)/cuda.key
	@mkdir -p $(@D)
	$(if $(CUDA_OBJ),$(NVCC) $(CUDA_FLAGS) -MMD -MP -MF $(@:.o=.d),$(CC) $(CPPFLAGS) $(CFLAGS) $(BASE) -MMD -MP -x c) -c $< -o $@
$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) $(BASE) -MMD -MP -c $< -o $@
# The Python files of checkpoints are part of the program: the assembler includes them.
$(BUILD)/llmc/weights/door.o build/fuzz/obj/llmc/weights/door.o: $(wildcard scripts/python/*.py)
$(BUILD)/test/%: $(BUILD)/test/%.o $(BUILD)/libc3.a
	$(link)
$(BUILD)/dev/%: $(BUILD)/dev/%.o $(BUILD)/libc3.a
	$(link)

$(BUILD)/dev/cuda/bench: $(BUILD)/dev/cuda/bench_check.o

# ---- fuzzers: the host code without MPI, OpenMP and kernels, under clang ----
FUZZ_CC  ?= clang
FUZZ_FLAGS := -std=c11 -D_GNU_SOURCE -O1 -g $(filter-out -Wconversion -Wno-sign-conversion,$(WARN)) -Wno-unknown-pragmas \
              -I. -fsanitize=address$(comma)undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
FUZZ_OBJ := $(patsubst %.c,build/fuzz/obj/%.o,$(filter-out llmc/cpu/% llmc/cuda/%,$(wildcard llmc/*.c llmc/*/*.c)))
fuzz: $(patsubst test/fuzz/fuzz_%.c,build/fuzz/%,$(wildcard test/fuzz/fuzz_*.c))
build/fuzz/obj/%.o: %.c
	@mkdir -p $(@D)
	$(FUZZ_CC) $(FUZZ_FLAGS) -fsanitize=fuzzer-no-link -MMD -MP -c $< -o $@
build/fuzz/libc3.a: $(FUZZ_OBJ)
	@rm -f $@
	ar rcs $@ $^
build/fuzz/%: build/fuzz/obj/test/fuzz/fuzz_%.o build/fuzz/obj/test/fuzz/slow.o build/fuzz/libc3.a
	$(FUZZ_CC) -fsanitize=fuzzer,address,undefined -Wl,--wrap=LLVMFuzzerTestOneInput -o $@ $^ -lcjson -lutf8proc -lz -lcrypto -lpthread -lm
.SECONDARY:

clean:
	rm -rf build train_c3 c3

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)

# ---- CUDA kernels on the CPU, for tests: make cudasim ----
include dev/cudasim/cudasim.mk
