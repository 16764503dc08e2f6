// SPDX-License-Identifier: BSD-2-Clause
// The host's strings are UTF-16, little endian, terminated; what we have to say and to understand is
// ASCII. Pure.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Bytes that a terminated string takes with its terminator, in a field of `size` bytes; 0: it is not
// terminated.
size_t utf16_size(const void *field, size_t size);

// False if it is not terminated, not printable ASCII, or too long for `out`.
bool utf16_to_ascii(const void *field, size_t size, char *out, size_t out_size);

// Writes the text and its terminator, cut off if it is too long, and zeros for the rest of the field.
// Returns the bytes of text and terminator. size >= 2.
size_t utf16_from_ascii(void *field, size_t size, const char *text);
