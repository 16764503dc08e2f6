// SPDX-License-Identifier: BSD-2-Clause
// Numbers from text. kernel/libc/stdlib.c. There is no malloc: see kernel/alloc.h.
#pragma once

#include <stddef.h>

int atoi(const char *s);
long strtol(const char *restrict s, char **restrict end, int base);
unsigned long strtoul(const char *restrict s, char **restrict end, int base);
