// SPDX-License-Identifier: BSD-2-Clause
// What lwIP needs to know of compiler and machine. Included by lwIP's arch.h.
#pragma once

#include <stddef.h>
#include <stdint.h>

#define BYTE_ORDER LITTLE_ENDIAN
#define LWIP_NO_INTTYPES_H 1
#define LWIP_NO_CTYPE_H 1
#define LWIP_NO_UNISTD_H 1
#define LWIP_NO_LIMITS_H 1
#define INT_MAX __INT_MAX__
#define SSIZE_MAX __LONG_MAX__
#ifdef DUNLIN_KERNEL
typedef long ssize_t;
#else
#include <sys/types.h> // the native build of the tests
#endif

// Formats of stb_sprintf, which the log uses.
#define X8_F "02x"
#define U16_F "u"
#define S16_F "d"
#define X16_F "x"
#define U32_F "u"
#define S32_F "d"
#define X32_F "x"
#define SZT_F "lu"

void heap_free(void *object);
void *net_alloc(size_t size);                // net/stack.h
void *net_calloc(size_t count, size_t size); // zeroed
uint32_t random_u32(void);

#define LWIP_RAND() random_u32()

_Noreturn void net_lwip_assert(const char *message, const char *file, int line);
#define LWIP_PLATFORM_ASSERT(message) net_lwip_assert(message, __FILE__, __LINE__)
#define LWIP_PLATFORM_DIAG(message) // lwIP's own chatter is compiled out
