// door.c: see door.h. The assembler takes the files in; make names them as what this object is made of.
#include "llmc/weights/door.h"

#define TAKE(symbol, path)                                                                                             \
    ".section .rodata\n.hidden " symbol "\n.globl " symbol "\n" symbol ":\n.incbin \"" path "\"\n.hidden " symbol      \
    "_end\n.globl " symbol "_end\n" symbol "_end:\n.byte 0\n.text\n"

__asm__(TAKE("door_configuration", "scripts/python/configuration_c3.py"));
__asm__(TAKE("door_modeling", "scripts/python/modeling_c3.py"));
extern const char door_configuration[], door_configuration_end[], door_modeling[], door_modeling_end[];

const char door_auto_map[] = "{\"AutoConfig\":\"configuration_c3.C3Config\","
                             "\"AutoModel\":\"modeling_c3.C3QwenForCausalLM\","
                             "\"AutoModelForCausalLM\":\"modeling_c3.C3QwenForCausalLM\"}";

DoorFile door_file(int i) {
    const DoorFile files[DOOR_FILES] = {
        {"configuration_c3.py", door_configuration, (size_t)(door_configuration_end - door_configuration)},
        {"modeling_c3.py", door_modeling, (size_t)(door_modeling_end - door_modeling)},
    };
    return files[i];
}
