// SPDX-License-Identifier: BSD-2-Clause
// Memory of net/, for its files that know nothing of lwIP.
#pragma once

#include <stddef.h>

// Memory for whatever others can make us need: fails while there is still some left for timers and
// the control plane, which cannot do without. Freed by heap_free(). Any core.
void *net_alloc(size_t size);
