// SPDX-License-Identifier: BSD-2-Clause
// What lwIP needs. There is no malloc: see kernel/alloc.h.
#pragma once

#include <stddef.h>

int atoi(const char *s);
