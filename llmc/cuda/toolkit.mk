# The CUDA toolkit: where it is, for which GPUs to compile, what to link. Included by the Makefile.
# Sets CUDA_OBJ (empty: CPU only), CUDA_LIBS, and CUDA_FOUND, the line that `make` says about it.
# NVCC may be given, with a launcher in front of it: NVCC="ccache nvcc". CUDA_BUILD: where the kernels' objects are, for
# two builds that share them. BUNDLE=1: libraries are looked for beside the programs (scripts/bundle.sh).
CUDA_BUILD ?= $(BUILD)

ifneq ($(NO_CUDA),)
CUDA_FOUND := no: NO_CUDA=$(NO_CUDA)
else ifneq ($(SANITIZE),)
CUDA_FOUND := no: host code is what the sanitizers look at
else
ifndef NVCC
NVCC := $(firstword $(if $(CUDA_HOME),$(wildcard $(CUDA_HOME)/bin/nvcc)) $(shell command -v nvcc 2>/dev/null) \
                    $(wildcard /usr/local/cuda/bin/nvcc))
endif
CUDA_NVCC := $(realpath $(shell command -v $(or $(lastword $(NVCC)),no-nvcc) 2>/dev/null))
CUDA_ROOT := $(CUDA_NVCC:%/bin/nvcc=%)
CUDA_LIB_DIRS := $(wildcard $(CUDA_ROOT)/lib64 $(CUDA_ROOT)/lib $(CUDA_ROOT)/targets/$(ARCH)-linux/lib \
                            $(NCCL_HOME)/lib /usr/lib/$(ARCH)-linux-gnu /usr/lib64 /usr/local/lib)
CUDA_INCLUDE  := -I$(CUDA_ROOT)/include $(if $(NCCL_HOME),-I$(NCCL_HOME)/include)
cuda_lib_dir   = $(patsubst %/,%,$(dir $(firstword $(wildcard $(CUDA_LIB_DIRS:%=%/$(1))))))
CUBLAS_DIR := $(call cuda_lib_dir,libcublasLt.so)
CUDART_DIR := $(call cuda_lib_dir,libcudart_static.a)
NCCL_DIR   := $(call cuda_lib_dir,libnccl.so)

ifeq ($(CUDA_NVCC),)
CUDA_FOUND := no: no nvcc in CUDA_HOME, on the PATH or in /usr/local/cuda
else ifeq ($(and $(CUBLAS_DIR),$(CUDART_DIR),$(call have_header,cublasLt.h,$(CUDA_INCLUDE))),)
CUDA_FOUND := no: $(CUDA_NVCC) has no cuBLASLt (cublasLt.h, libcublasLt.so, libcudart_static.a) beside it
else
CUDA_VERSION := $(shell $(CUDA_NVCC) --version | sed -n 's/.*release \([0-9]*\.[0-9]*\),.*/\1/p')
# Without MPI there is one rank; NCCL then serves -nccl alone.
HAVE_NCCL := $(if $(NCCL_DIR),$(call have_header,nccl.h,$(CUDA_INCLUDE)))

# sm_100 came with toolkit 12.8. GPUs before sm_80 are refused by the program. GPU_ARCH=all: as without a GPU here.
CUDA_EVERY_ARCH := 80 90 $(shell awk -v v=$(CUDA_VERSION) 'BEGIN { split(v, a, "."); if (a[1] * 100 + a[2] >= 1208) print 100 }')
GPU_ARCH ?= $(filter-out 5% 6% 7%,$(shell nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | \
                                        sed -n 's/^\([0-9]*\)\.\([0-9]\)$$/\1\2/p'))
CUDA_ARCH := $(shell printf '%s\n' $(or $(strip $(filter-out all,$(GPU_ARCH))),$(CUDA_EVERY_ARCH)) | sort -nu)
# Machine code for each, and PTX of the newest for GPUs to come.
CUDA_CODE := $(foreach a,$(CUDA_ARCH),-gencode arch=compute_$(a)$(comma)code=sm_$(a)) \
             -gencode arch=compute_$(lastword $(CUDA_ARCH))$(comma)code=compute_$(lastword $(CUDA_ARCH))
CUDA_FLAGS := -std=c++17 -O3 -lineinfo -t 2 $(CUDA_CODE) -I. $(CUDA_INCLUDE) $(if $(HAVE_NCCL),-DHAVE_NCCL) \
              -Xcompiler=-Wall$(comma)-Wextra$(comma)-Wshadow
CUDA_KERNELS := $(patsubst %.cu,$(CUDA_BUILD)/%.o,$(wildcard llmc/cuda/*.cu))
CUDA_OBJ   := $(CUDA_KERNELS) $(BUILD)/llmc/cuda/libraries.o
# cuBLASLt and NCCL are loaded when a GPU is opened (libraries.c), by name or from where they were found here.
CUDA_LIBS  := $(if $(BUNDLE),-Wl$(comma)--disable-new-dtags$(comma)-rpath$(comma)'$$ORIGIN/lib:$$ORIGIN/../lib:$$ORIGIN/../../lib:$$ORIGIN/../../../lib',\
                -Wl$(comma)-rpath$(comma)$(CUBLAS_DIR)$(if $(HAVE_NCCL),:$(NCCL_DIR))) \
              $(CUDART_DIR)/libcudart_static.a $(if $(BUNDLE),-Wl$(comma)-Bstatic -lstdc++ -Wl$(comma)-Bdynamic -static-libgcc,-lstdc++) -lrt -ldl
CUDA_FOUND := $(CUDA_VERSION) in $(CUDA_ROOT), $(CUDA_ARCH:%=sm_%) | \
              NCCL $(if $(HAVE_NCCL),in $(NCCL_DIR),no: one GPU only)
$(BUILD)/llmc/cuda/libraries.o: CPPFLAGS += -isystem $(CUDA_ROOT)/include $(NCCL_HOME:%=-isystem %/include) $(if $(HAVE_NCCL),-DHAVE_NCCL)
$(CUDA_KERNELS): $(CUDA_BUILD)/%.o: %.cu $(CUDA_BUILD)/cuda.key
	@mkdir -p $(@D)
	$(NVCC) $(CUDA_FLAGS) -MMD -MP -MF $(@:.o=.d) -c $< -o $@
endif
endif

# Changes when any of this does: what was compiled or linked otherwise is made again.
CUDA_KEY := $(NVCC) $(CUDA_FLAGS) $(CUDA_OBJ) $(CUDA_LIBS)
$(shell mkdir -p $(BUILD); printf '%s\n' '$(CUDA_KEY)' | cmp -s - $(BUILD)/cuda.key || printf '%s\n' '$(CUDA_KEY)' >$(BUILD)/cuda.key)
