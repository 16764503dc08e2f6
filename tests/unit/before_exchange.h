// SPDX-License-Identifier: BSD-2-Clause
// Included before all else where kernel/message.c is tested: a test can do something just before a
// core takes the bits that tell who has sent to it.
#pragma once

#include <stdatomic.h>

extern _Thread_local void (*before_exchange)(void); // NULL: nothing

#undef atomic_exchange
#define atomic_exchange(object, value)                                                             \
    ((before_exchange ? before_exchange() : (void)0),                                              \
     __atomic_exchange_n(object, value, __ATOMIC_SEQ_CST))
