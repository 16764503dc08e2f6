// SPDX-License-Identifier: BSD-2-Clause
// The edges of the kernel image's parts, as linker/kernel.ld sets them. All but kernel_end and
// boot_stack_top are page aligned starts of a range with one kind of rights.
#pragma once

extern char kernel_start[], text_end[], percore_start[], percore_end[], data_start[], data_end[],
    kernel_end[];
extern char boot_stack_guard[], boot_stack_top[];
