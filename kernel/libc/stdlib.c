// SPDX-License-Identifier: BSD-2-Clause
// See stdlib.h.
#include <stdlib.h>

#include <ctype.h>
#include <limits.h>
#include <stdbool.h>

static int digit_value(char c)
{
    if (isdigit(c))
        return c - '0';
    if (islower(tolower(c)))
        return tolower(c) - 'a' + 10;
    return INT_MAX;
}

// The digits at s in this base; *end is where they end; ULONG_MAX if there are too many.
static unsigned long digits(const char *s, const char **end, int base)
{
    unsigned long value = 0;
    bool overflow = false;

    for (; digit_value(*s) < base; s++) {
        overflow |= __builtin_mul_overflow(value, (unsigned long)base, &value);
        overflow |= __builtin_add_overflow(value, (unsigned long)digit_value(*s), &value);
    }
    *end = s;
    return overflow ? ULONG_MAX : value;
}

// Skips space, sign and prefix; returns the base.
static int number_start(const char **s, int base, bool *negative)
{
    while (isspace(**s))
        (*s)++;
    *negative = **s == '-';
    if (**s == '-' || **s == '+')
        (*s)++;
    bool hex = (*s)[0] == '0' && ((*s)[1] | 0x20) == 'x' && isxdigit((*s)[2]);
    if ((base == 0 || base == 16) && hex) {
        *s += 2;
        return 16;
    }
    if (base == 0)
        return **s == '0' ? 8 : 10;
    return base;
}

unsigned long strtoul(const char *restrict s, char **restrict end, int base)
{
    const char *first = s, *last;
    bool negative;

    base = number_start(&first, base, &negative);
    unsigned long value = digits(first, &last, base);
    if (end)
        *end = (char *)(last == first ? s : last);
    return negative ? -value : value;
}

long strtol(const char *restrict s, char **restrict end, int base)
{
    const char *first = s, *last;
    bool negative;

    base = number_start(&first, base, &negative);
    unsigned long value = digits(first, &last, base);
    if (end)
        *end = (char *)(last == first ? s : last);
    if (negative)
        return value > LONG_MAX ? LONG_MIN : -(long)value;
    return value > LONG_MAX ? LONG_MAX : (long)value;
}

int atoi(const char *s)
{
    return (int)strtol(s, NULL, 10);
}
