// SPDX-License-Identifier: BSD-2-Clause
// ASCII only.
#pragma once

static inline int isdigit(int c)
{
    return c >= '0' && c <= '9';
}

static inline int isspace(int c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static inline int isxdigit(int c)
{
    return isdigit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static inline int islower(int c)
{
    return c >= 'a' && c <= 'z';
}
