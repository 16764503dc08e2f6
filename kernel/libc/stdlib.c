// SPDX-License-Identifier: BSD-2-Clause
// The one function of the C library's stdlib.h that lwIP calls, for the number in an interface's name.
#include <stdlib.h>

int atoi(const char *s)
{
    unsigned value = 0;

    while (*s >= '0' && *s <= '9')
        value = value * 10 + (unsigned)(*s++ - '0');
    return (int)value;
}
