// SPDX-License-Identifier: BSD-2-Clause
// The one place where stb_sprintf's implementation is compiled. Without floats: the kernel has
// none.
#include <stddef.h>

#define STB_SPRINTF_NOFLOAT
#define STB_SPRINTF_IMPLEMENTATION
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wimplicit-fallthrough"
#define double long // left in one place, to skip an argument that nobody passes
#include <stb_sprintf.h>
