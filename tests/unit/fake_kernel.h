// SPDX-License-Identifier: BSD-2-Clause
// The kernel as unit tests of drivers see it: virtual time, cores that take turns, real fibers (a thread
// each, of which one runs at a time), pollers, counted memory. Nothing happens but in a test's calls.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// From now on there are n cores, with messages between them. At first there is one, without.
void fake_cores(unsigned n);

// What is called from now on runs on that core; the next turn begins with another.
void fake_core(unsigned core);

// One turn of each core's loop: the pollers, then fibers that are ready or due. True if anything ran.
bool fake_turn(void);

// From now on cores without work do not go to halt, but would look on. fake_look(): what the calling
// core sees then, true if there may be work.
void fake_spin(bool on);
bool fake_look(void);

// Turns until nothing is left to do; when all wait, time jumps to the next time-out, but not beyond
// `duration` from now. Then time is at most now + duration.
void fake_run(uint64_t duration);

// The same, but only until done() is true at a moment when all wait. False if it never was.
bool fake_run_until(bool (*done)(void), uint64_t duration);

// How many pages the machine has. Only statistics know: page_alloc() gives more.
void fake_memory(size_t pages);

// Pages and heap objects that are allocated.
size_t fake_pages_live(void);
size_t fake_objects_live(void);

unsigned fake_fibers_live(void);

// How often memory was asked for: pages, objects and fibers. Of what will be asked for now, `count`
// requests are refused from number `first` (1: the next) on.
unsigned fake_allocations(void);
void fake_refuse(unsigned first, unsigned count);

// Undoes loop_add().
struct poller;
void fake_loop_remove(struct poller *p);

// The text that all sources of statistics print, as one JSON object.
const char *fake_stats(void);

// The first number of that name in it; ends the test if there is none.
uint64_t fake_counter(const char *name);
