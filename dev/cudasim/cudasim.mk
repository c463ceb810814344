# Building for the simulation; included by the Makefile, whose BUILD, WARN and MPI variables it uses.
#
#   make cudasim    the library and its tests, in three variants under build/cudasim/:
#                   opt: fast; asan: gcc's address sanitizer, alignment too; race: the race check
#   make cudasim_products    train_c3, c3, test_ops, parity_check with simulated GPUs, likewise build/cudasim/VARIANT/NAME:
#                   the host's objects are those of the product, llmc/cuda/*.cu are translated
#
# Objects of translated .cu files are build/cudasim/VARIANT/PATH.o for PATH.cu; programs link them with
# $(call cudasim_lib,VARIANT), MPI's libraries and CUDASIM_LIBS, on a line of $(CUDASIM_LINK_VARIANT).

CUDASIM        := build/cudasim
CUDASIM_CXX    ?= g++
# The toolkit is looked for, or fetched, when something needs it, and once.
CUDASIM_CUDA    = $(eval CUDASIM_CUDA := $$(shell bash dev/cuda/get_toolkit.sh))$(or $(CUDASIM_CUDA),$(error no CUDA headers))
CUDASIM_FLAGS   = -std=c++17 -g -march=native -ffp-contract=fast -fno-strict-aliasing -DOMPI_SKIP_MPICXX \
                  -Idev/cudasim/include -I$(CUDASIM)/src -I. $(if $(MPI_LIBS),-DHAVE_NCCL) -isystem $(CUDASIM_CUDA)/include $(MPI_CFLAGS) -MMD -MP
CUDASIM_WARN   := -Wall -Wextra -Wshadow -Wno-unknown-pragmas
CUDASIM_LIBS   := -rdynamic -lpthread -ldl

CUDASIM_VARIANTS    := opt asan race
CUDASIM_KERNEL_opt  := -O2
# Checks of addresses as calls: inline, they take the compiler minutes for the unrolled loops of attention.
CUDASIM_KERNEL_asan := -O1 -fsanitize=address,alignment -fno-sanitize-recover=alignment \
                       --param asan-instrumentation-with-call-threshold=0
CUDASIM_KERNEL_race := -O1 -fsanitize=thread --param tsan-instrument-func-entry-exit=0
CUDASIM_LINK_asan   := -fsanitize=address,alignment

# The library: plain, and with the address sanitizer. The race check is one more object, which must not be in an archive.
CUDASIM_SRC := $(filter-out %/race.cpp $(if $(MPI_LIBS),,%/nccl.cpp),$(wildcard dev/cudasim/src/*.cpp))
$(CUDASIM)/plain/%.o: dev/cudasim/src/%.cpp
	@mkdir -p $(@D)
	@echo "  cudasim $@"; $(CUDASIM_CXX) $(CUDASIM_FLAGS) $(CUDASIM_WARN) -O3 -c $< -o $@
$(CUDASIM)/sanitized/%.o: dev/cudasim/src/%.cpp
	@mkdir -p $(@D)
	@echo "  cudasim $@"; $(CUDASIM_CXX) $(CUDASIM_FLAGS) $(CUDASIM_WARN) -O1 -fsanitize=address -c $< -o $@
$(CUDASIM)/plain/libcudasim.a: $(CUDASIM_SRC:dev/cudasim/src/%.cpp=$(CUDASIM)/plain/%.o)
$(CUDASIM)/sanitized/libcudasim.a: $(CUDASIM_SRC:dev/cudasim/src/%.cpp=$(CUDASIM)/sanitized/%.o)
$(CUDASIM)/plain/libcudasim.a $(CUDASIM)/sanitized/libcudasim.a:
	@rm -f $@
	@ar rcs $@ $^
cudasim_lib = $(if $(filter asan,$(1)),$(CUDASIM)/sanitized/libcudasim.a,\
              $(if $(filter race,$(1)),$(CUDASIM)/plain/race.o) $(CUDASIM)/plain/libcudasim.a)

CUDASIM_PRODUCTS := train_c3 c3 test_ops parity_check
CUDASIM_BACKEND  := $(patsubst %.cu,%,$(wildcard llmc/cuda/*.cu))

# Translated sources, in a tree of their own so that their includes of each other find translated headers.
$(CUDASIM)/src/%.cuh: %.cuh dev/cudasim/cuda_to_cpp.sed
	@mkdir -p $(@D)
	@{ echo '#line 1 "$<"'; sed -E -f dev/cudasim/cuda_to_cpp.sed $<; } > $@
$(CUDASIM)/src/%.cu.cpp: %.cu dev/cudasim/cuda_to_cpp.sed
	@mkdir -p $(@D)
	@{ echo '#line 1 "$<"'; sed -E -f dev/cudasim/cuda_to_cpp.sed $<; } > $@
define cudasim_variant
$(CUDASIM)/$(1)/%.o: $(CUDASIM)/src/%.cu.cpp
	@mkdir -p $$(@D)
	@echo "  cudasim $$@"; $$(CUDASIM_CXX) $$(CUDASIM_FLAGS) $$(CUDASIM_WARN) $$(CUDASIM_KERNEL_$(1)) -iquote $$(dir $$*) -c $$< -o $$@
$(CUDASIM)/$(1)/test_%: $(CUDASIM)/$(1)/dev/cudasim/tests/test_%.o $$(call cudasim_lib,$(1))
	@echo "  cudasim $$@"; $$(CUDASIM_CXX) $$(CUDASIM_LINK_$(1)) $$^ -o $$@ $$(MPI_LIBS) $$(CUDASIM_LIBS)
# A product: main's object (the trainer's is C++ here, as nvcc sees it), then what it shares with the others.
$(CUDASIM)/$(1)/train_c3: $(CUDASIM)/$(1)/train_c3.o
$(CUDASIM)/$(1)/c3: $(BUILD)/c3.o
$(CUDASIM)/$(1)/test_ops: $(BUILD)/test/test_ops.o
$(CUDASIM)/$(1)/parity_check: $(BUILD)/test/parity_check.o
$(CUDASIM_PRODUCTS:%=$(CUDASIM)/$(1)/%): $(CUDASIM_BACKEND:%=$(CUDASIM)/$(1)/%.o) $(BUILD)/libc3.a $$(call cudasim_lib,$(1))
	@echo "  cudasim $$@"; $$(CUDASIM_CXX) -fopenmp $$(CUDASIM_LINK_$(1)) $$(filter %.o,$$^) $$(filter %.a,$$^) -o $$@ $$(LDLIBS) $$(CUDASIM_LIBS)
$(CUDASIM)/$(1)/test_attention: $(CUDASIM)/$(1)/test/cuda/test_attention.o \
    $$(patsubst %.cu,$(CUDASIM)/$(1)/%.o,$$(wildcard llmc/cuda/attention*.cu)) $$(call cudasim_lib,$(1))
	@echo "  cudasim $$@"; $$(CUDASIM_CXX) $$(CUDASIM_LINK_$(1)) $$^ -o $$@ $$(MPI_LIBS) $$(CUDASIM_LIBS)
endef
$(foreach v,$(CUDASIM_VARIANTS),$(eval $(call cudasim_variant,$(v))))
# Headers that sources include must be translated before the first compilation; later the .d files know them.
$(foreach d,dev/cudasim/tests llmc/cuda test/cuda,$(foreach v,$(CUDASIM_VARIANTS),$(eval \
    $(patsubst %.cu,$(CUDASIM)/$(v)/%.o,$(wildcard $(d)/*.cu)): | $(patsubst %.cuh,$(CUDASIM)/src/%.cuh,$(wildcard $(d)/*.cuh)))))

CUDASIM_TESTS := $(filter-out $(if $(MPI_LIBS),,%/test_nccl),$(patsubst dev/cudasim/tests/%.cu,%,$(wildcard dev/cudasim/tests/test_*.cu)))
.PHONY: cudasim cudasim_products
cudasim: $(foreach v,$(CUDASIM_VARIANTS),$(CUDASIM_TESTS:%=$(CUDASIM)/$(v)/%))
cudasim_products: $(foreach v,$(CUDASIM_VARIANTS),$(CUDASIM_PRODUCTS:%=$(CUDASIM)/$(v)/%))
.SECONDARY:
-include $(wildcard $(CUDASIM)/plain/*.d $(CUDASIM)/sanitized/*.d $(CUDASIM)/*/dev/cudasim/tests/*.d \
           $(CUDASIM)/*/llmc/cuda/*.d $(CUDASIM)/*/test/cuda/*.d)
