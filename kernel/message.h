// SPDX-License-Identifier: BSD-2-Clause
// How cores talk: small messages that run a function in another core's loop. For what happens now and
// then (an address changes, a connection opens); packets of one connection never need it.
#pragma once

#include <stdbool.h>
#include <stddef.h>

#define MESSAGE_BYTES 48u

// Runs fn on core `to` (0..core_count()-1, the caller's own, too) in its loop, soon. `data`, at most
// MESSAGE_BYTES, is copied, and fn gets a copy, 16 byte aligned, that lives until it returns. Messages
// of one sender arrive in order. A core that sleeps is woken. Memory that `data` points to must be
// neither in the per-core window nor go to heap_free() on the receiving core. False: too many messages
// to that core are under way; the caller decides what that means. Any core's loop or fiber, after
// messages_start(); not from interrupt handlers.
bool message_post(unsigned to, void (*fn)(const void *data), const void *data, size_t len);

// The same with a pointer for data: fn gets the address of a copy of the pointer.
static inline bool message_post_pointer(unsigned to, void (*fn)(const void *data), const void *p)
{
    return message_post(to, fn, &p, sizeof(p));
}

// Runs fn(arg) in the loop of core `core` and returns when it has; messages that `core` sent to core 0
// before have then been taken, too. From a fiber of core 0; the own core's is simply called. fn must
// not wait for anything.
void core_call(unsigned core, void (*fn)(void *arg), void *arg);
