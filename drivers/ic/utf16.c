// SPDX-License-Identifier: BSD-2-Clause
// See utf16.h.
#include "drivers/ic/utf16.h"

#include <string.h>

static unsigned unit(const void *field, size_t at)
{
    const uint8_t *bytes = field;

    return bytes[at] | (unsigned)bytes[at + 1] << 8;
}

size_t utf16_size(const void *field, size_t size)
{
    for (size_t at = 0; at + 2 <= size; at += 2) {
        if (unit(field, at) == 0)
            return at + 2;
    }
    return 0;
}

bool utf16_to_ascii(const void *field, size_t size, char *out, size_t out_size)
{
    size_t bytes = utf16_size(field, size);

    if (bytes == 0 || bytes / 2 > out_size)
        return false;
    for (size_t i = 0; i < bytes / 2; i++) {
        unsigned c = unit(field, 2 * i);
        if (c > '~' || (c < ' ' && c != 0))
            return false;
        out[i] = (char)c;
    }
    return true;
}

size_t utf16_from_ascii(void *field, size_t size, const char *text)
{
    uint8_t *bytes = field;
    size_t at = 0;

    memset(field, 0, size);
    for (; *text && at + 4 <= size; at += 2)
        bytes[at] = (uint8_t)*text++;
    return at + 2;
}
