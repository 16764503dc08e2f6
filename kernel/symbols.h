// SPDX-License-Identifier: BSD-2-Clause
// The function table that linker/symbols makes: for the panic report's backtrace.
#pragma once

#include <stdint.h>

extern const uint32_t symbol_count, symbol_offsets[]; // from kernel_start, ascending
extern const char symbol_names[];                     // NUL terminated, in the same order
