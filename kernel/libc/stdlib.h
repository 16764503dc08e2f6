// SPDX-License-Identifier: BSD-2-Clause
// Declared for a function of lwIP that the linker drops. There is no malloc: see kernel/alloc.h.
#pragma once

#include <stddef.h>

int atoi(const char *s);
