// SPDX-License-Identifier: BSD-2-Clause
// See string.h. Copies go by eight bytes at a time: the compiler is kept from vector registers, and
// unaligned accesses are cheap on every x86-64. Built so that the compiler does not turn the loops
// back into calls of the functions they are in.
#include <string.h>

#include <stdint.h>

#pragma GCC diagnostic ignored "-Wunknown-pragmas"
#pragma GCC optimize("no-tree-loop-distribute-patterns")

typedef uint64_t __attribute__((may_alias, aligned(1))) word;
typedef uint32_t __attribute__((may_alias, aligned(1))) half;

#undef memcpy
#undef memset

void *memcpy(void *restrict to, const void *restrict from, size_t n)
{
    char *t = to;
    const char *f = from;

    for (; n >= 64; n -= 64, t += 64, f += 64) {
        uint64_t a = ((const word *)f)[0], b = ((const word *)f)[1], c = ((const word *)f)[2],
                 d = ((const word *)f)[3];
        ((word *)t)[0] = a, ((word *)t)[1] = b, ((word *)t)[2] = c, ((word *)t)[3] = d;
        a = ((const word *)f)[4], b = ((const word *)f)[5], c = ((const word *)f)[6],
        d = ((const word *)f)[7];
        ((word *)t)[4] = a, ((word *)t)[5] = b, ((word *)t)[6] = c, ((word *)t)[7] = d;
    }
    for (; n >= 16; n -= 16, t += 16, f += 16) {
        uint64_t a = ((const word *)f)[0], b = ((const word *)f)[1];
        ((word *)t)[0] = a, ((word *)t)[1] = b;
    }
    // What is left by two moves that may overlap.
    if (n >= 8) {
        uint64_t a = *(const word *)f, b = *(const word *)(f + n - 8);
        *(word *)t = a, *(word *)(t + n - 8) = b;
    } else if (n >= 4) {
        uint32_t a = *(const half *)f, b = *(const half *)(f + n - 4);
        *(half *)t = a, *(half *)(t + n - 4) = b;
    } else if (n > 0) {
        char a = f[0], b = f[n / 2], c = f[n - 1];
        t[0] = a, t[n / 2] = b, t[n - 1] = c;
    }
    return to;
}

void *memmove(void *to, const void *from, size_t n)
{
    char *t = to;
    const char *f = from;

    if (t == f || t + n <= f || f + n <= t)
        return memcpy(to, from, n);
    if (t < f) {
        for (; n >= 8; n -= 8, t += 8, f += 8) {
            *(word *)t = *(const word *)f;
            __asm__ volatile("" : : : "memory");
        }
        for (; n > 0; n--) {
            *t++ = *f++;
            __asm__ volatile("" : : : "memory");
        }
        return to;
    }
    for (; n >= 8; n -= 8) {
        *(word *)(t + n - 8) = *(const word *)(f + n - 8);
        __asm__ volatile("" : : : "memory");
    }
    for (; n > 0; n--) {
        t[n - 1] = f[n - 1];
        __asm__ volatile("" : : : "memory");
    }
    return to;
}

void *memset(void *to, int value, size_t n)
{
    uint64_t pattern = 0x0101010101010101ull * (uint8_t)value;
    char *t = to;

    for (; n >= 32; n -= 32, t += 32) {
        ((word *)t)[0] = pattern, ((word *)t)[1] = pattern;
        ((word *)t)[2] = pattern, ((word *)t)[3] = pattern;
        __asm__ volatile("" : : : "memory");
    }
    for (; n >= 8; n -= 8, t += 8) {
        *(word *)t = pattern;
        __asm__ volatile("" : : : "memory");
    }
    for (; n > 0; n--) {
        *t++ = (char)value;
        __asm__ volatile("" : : : "memory");
    }
    return to;
}

int memcmp(const void *a, const void *b, size_t n)
{
    const uint8_t *x = a, *y = b;

    for (; n > 0; n--, x++, y++)
        if (*x != *y)
            return *x - *y;
    return 0;
}

size_t strlen(const char *s)
{
    const char *at = s;

    while (*at) {
        at++;
        __asm__ volatile("" : "+r"(at));
    }
    return (size_t)(at - s);
}

int strcmp(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return (uint8_t)*a - (uint8_t)*b;
}

int strncmp(const char *a, const char *b, size_t n)
{
    while (n > 0 && *a && *a == *b)
        a++, b++, n--;
    return n == 0 ? 0 : (uint8_t)*a - (uint8_t)*b;
}

char *strchr(const char *s, int c)
{
    for (;; s++) {
        if (*s == (char)c)
            return (char *)(uintptr_t)s;
        if (*s == 0)
            return NULL;
    }
}

size_t strcspn(const char *s, const char *reject)
{
    size_t i = 0;

    while (s[i] && !strchr(reject, s[i]))
        i++;
    return i;
}

size_t strspn(const char *s, const char *accept)
{
    size_t i = 0;

    while (s[i] && strchr(accept, s[i]))
        i++;
    return i;
}
