// SPDX-License-Identifier: BSD-2-Clause
// assert() ends in panic(); _Static_assert by its usual name.
#pragma once

#include "kernel/panic.h"

#define assert(cond) ASSERT(cond)
#define static_assert _Static_assert
