# The CPU kernels, compiled once per element type and instruction set; cpu.c picks at run time.
#   base: x86-64-v3 (AVX2, FMA) on x86-64, the compiler's default elsewhere
CPU_VARIANTS := base_f32 base_bf16
CPU_base_f32_FLAGS  := $(BASE) -DELEM_BF16=0 -DDOT=0 -DKERNELS_ISA='"base"'
CPU_base_bf16_FLAGS := $(BASE) -DELEM_BF16=1 -DDOT=0 -DKERNELS_ISA='"base"'
ifeq ($(ARCH),x86_64)
CPPFLAGS += -DCPU_HAVE_X86_VARIANTS
AVX512   := -march=x86-64-v4 -mprefer-vector-width=512
CPU_VARIANTS += avx512_f32 avx512_bf16 avx512bf16_bf16
CPU_avx512_f32_FLAGS      := $(AVX512) -DELEM_BF16=0 -DDOT=0 -DKERNELS_ISA='"avx512"'
CPU_avx512_bf16_FLAGS     := $(AVX512) -DELEM_BF16=1 -DDOT=0 -DKERNELS_ISA='"avx512"'
CPU_avx512bf16_bf16_FLAGS := $(AVX512) -mavx512bf16 -DELEM_BF16=1 -DDOT=1 -DKERNELS_ISA='"avx512_bf16"'
endif
EXTRA_OBJ += $(CPU_VARIANTS:%=$(BUILD)/llmc/cpu/kernels/%.o)

$(CPU_VARIANTS:%=$(BUILD)/llmc/cpu/kernels/%.o): $(BUILD)/llmc/cpu/kernels/%.o: llmc/cpu/kernels/kernels.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) $(CPU_$*_FLAGS) -DKERNELS=cpu_kernels_$* -MMD -MP -c $< -o $@
