// format.h: numbers for people to read.
#ifndef LLMC_FORMAT_H
#define LLMC_FORMAT_H

#ifdef __cplusplus
extern "C" {
#endif

// Each writes into the buffer and returns it.
const char *format_bytes(char buffer[32], double bytes);  // "12.3 GB"
const char *format_count(char buffer[32], double count);  // 1234567 as "1,234,567"
const char *format_time(char buffer[32], double seconds); // "3 d 2 h", "3 h 12 min", "4 min 10 s", "12 s"

#ifdef __cplusplus
}
#endif
#endif
