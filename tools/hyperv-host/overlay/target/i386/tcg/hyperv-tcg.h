/*
 * Hyper-V for TCG guests: what the hooks in target/i386 call.
 *
 * All of it is inert, at the cost of one test, without -cpu ...,hyperv=on.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TARGET_I386_HYPERV_TCG_H
#define TARGET_I386_HYPERV_TCG_H

/* Bits of X86CPU.hyperv_features above those that KVM uses. */
#define HYPERV_TCG_ON            32
#define HYPERV_TCG_STIMER_DIRECT 33
#define HYPERV_TCG_TSC_PAGE      34
#define HYPERV_TCG_FREQUENCIES   35
#define HYPERV_TCG_CRASH         36
#define HYPERV_TCG_AUTO_EOI      37

#define HYPERV_TCG_PROPERTIES                                                 \
    DEFINE_PROP_BIT64("hyperv", X86CPU, hyperv_features,                      \
                      HYPERV_TCG_ON, false),                                  \
    DEFINE_PROP_BIT64("hyperv-stimer-direct", X86CPU, hyperv_features,        \
                      HYPERV_TCG_STIMER_DIRECT, true),                        \
    DEFINE_PROP_BIT64("hyperv-tsc-page", X86CPU, hyperv_features,             \
                      HYPERV_TCG_TSC_PAGE, true),                             \
    DEFINE_PROP_BIT64("hyperv-frequencies", X86CPU, hyperv_features,          \
                      HYPERV_TCG_FREQUENCIES, true),                          \
    DEFINE_PROP_BIT64("hyperv-crash", X86CPU, hyperv_features,                \
                      HYPERV_TCG_CRASH, true),                                \
    DEFINE_PROP_BIT64("hyperv-auto-eoi", X86CPU, hyperv_features,             \
                      HYPERV_TCG_AUTO_EOI, true)

/* Set @cpu up if it has hyperv=on.  BQL held; false and @errp on failure. */
bool hyperv_tcg_realize(X86CPU *cpu, Error **errp);

/* Fill in leaf @index if it is one of Hyper-V's; false if not. */
bool hyperv_tcg_cpuid(X86CPU *cpu, uint32_t index, uint32_t *eax, uint32_t *ebx, uint32_t *ecx,
                      uint32_t *edx);

/* Is @msr Hyper-V's?  Then read or write it; false means #GP.  vCPU thread. */
bool hyperv_tcg_is_msr(CPUX86State *env, uint32_t msr);
bool hyperv_tcg_rdmsr(CPUX86State *env, uint32_t msr, uint64_t *value);
bool hyperv_tcg_wrmsr(CPUX86State *env, uint32_t msr, uint64_t value);

/* VMMCALL: do the hypercall in the registers; false if it is not one. */
bool hyperv_tcg_hypercall(CPUX86State *env);

/* The guest's TSC when this machine's, as QEMU counts it, is @ticks. */
uint64_t hyperv_tcg_tsc(uint64_t ticks);

/* @cpu is about to take hardware interrupt @vector.  vCPU thread, BQL held. */
void hyperv_tcg_interrupt_taken(X86CPU *cpu, int vector);

#endif
