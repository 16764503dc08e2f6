// SPDX-License-Identifier: BSD-2-Clause
// Declared for inih's functions that read files, which the linker drops. Printing: stb_sprintf.h.
#pragma once

#include <stddef.h>

typedef struct FILE FILE;

FILE *fopen(const char *path, const char *mode);
char *fgets(char *s, int size, FILE *stream);
int fclose(FILE *stream);
