// SPDX-License-Identifier: BSD-2-Clause
// Memory and strings, as far as the kernel, lwIP, inih and jsmn use them. kernel/libc/string.c.
#pragma once

#include <stddef.h>

void *memcpy(void *restrict to, const void *restrict from, size_t n);
void *memmove(void *to, const void *from, size_t n);
void *memset(void *to, int value, size_t n);

// Small copies of constant size are a few moves in place of a call. Not larger ones: compilers make
// string instructions of them, which an emulated machine runs byte by byte.
#define MEMORY_INLINE(n) (__builtin_constant_p(n) && (n) <= 64)
#define memcpy(to, from, n)                                                                        \
    (MEMORY_INLINE(n) ? __builtin_memcpy(to, from, n) : (memcpy)(to, from, n))
#define memset(to, value, n)                                                                       \
    (MEMORY_INLINE(n) ? __builtin_memset(to, value, n) : (memset)(to, value, n))

int memcmp(const void *a, const void *b, size_t n);
size_t strlen(const char *s);
int strcmp(const char *a, const char *b);
int strncmp(const char *a, const char *b, size_t n);
char *strchr(const char *s, int c);
size_t strcspn(const char *s, const char *reject);
size_t strspn(const char *s, const char *accept);
