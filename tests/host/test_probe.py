# SPDX-License-Identifier: BSD-2-Clause
"""The emulated host's own duties, tried by an EFI program (probe.c): what a guest gets that keeps to
the rules, and what one gets that breaks them."""

import re

import trials

# Name of the trial: (result, rule that the host must name in its log).
EXPECTED = {
    "cpuid hypervisor bit": ("yes", None),
    "cpuid maximum": ("0x40000005", None),
    "cpuid vendor": ("yes", None),
    "cpuid interface": ("0x31237648", None),
    "write VP_INDEX": ("#GP", "msr-read-only"),
    "write TIME_REF_COUNT": ("#GP", "msr-read-only"),
    "write TSC_FREQUENCY": ("#GP", "msr-read-only"),
    "write SVERSION": ("#GP", "msr-read-only"),
    "read VP_RUNTIME": ("#GP", "msr-not-offered"),
    "read EOI": ("#GP", "msr-not-offered"),
    "VP_INDEX": ("0x0", None),
    "SVERSION": ("0x1", None),
    "SINT2 at reset": ("0x10000", None),
    "SINT vector 15": ("#GP", "sint-vector"),
    "SINT vector 16": ("done", None),
    "SINT vector 0 masked": ("done", None),
    "SIMP where no RAM is": ("#GP", "overlay-unmappable"),
    "STIMER reserved bits": ("#GP", "msr-reserved-bits"),
    "page enabled without OS id": ("no", "hypercall-without-os-id"),
    "call without page": ("#UD", "hypercall-page-disabled"),
    "HYPERCALL reserved bits": ("#GP", "msr-reserved-bits"),
    "HYPERCALL where no RAM is": ("#GP", "overlay-unmappable"),
    "page enabled": ("yes", None),
    "page covers RAM": ("yes", None),
    "page is writable": ("no", None),
    "call in compatibility mode": ("#UD", "hypercall-mode"),
    "unknown call": ("0x2", "hypercall-code"),
    "post with reps": ("0x3", "hypercall-control"),
    "post with variable header": ("0x3", "hypercall-control"),
    "post unaligned": ("0x4", "hypercall-alignment"),
    "post across pages": ("0x4", "hypercall-alignment"),
    "post from no RAM": ("0x5", "hypercall-input-address"),
    "post fast": ("0x3", "post-message-fast"),
    "post 241 bytes": ("0x5", "post-message-size"),
    "post 240 bytes, unknown connection": ("0x12", None),
    "signal unknown connection": ("0x12", None),
    "signal from memory": ("0x12", None),
    "signal flag 1": ("0x5", "signal-event-flag"),
    "REFERENCE_TSC reserved bits": ("#GP", "msr-reserved-bits"),
    "TSC page valid": ("yes", None),
    "TSC page and MSR agree": ("yes", None),
    "frequency fits scale": ("yes", None),
    "SIMP covers RAM, zeroed": ("yes", None),
    "no message while SINT is masked": ("yes", None),
    "waiting message on unmask": ("yes", None),
    "message is right": ("yes", None),
    "interrupt pending": ("yes", None),
    "one-shot disabled itself": ("yes", None),
    "full slot is flagged": ("yes", None),
    "second message after EOM": ("yes", None),
    "five periods": ("yes", None),
    "stopped": ("yes", None),
    "direct timer in time": ("yes", None),
    "SIMP gives RAM back": ("yes", None),
    "page enabled with OS id 0": ("no", None),
    "write locked HYPERCALL": ("#GP", "hypercall-msr-locked"),
    "crash text is taken": ("yes", None),
    "end": ("yes", None),
}


@trials.breaks_rules(EXPECTED)
def test_probe(boot):
    vm = trials.start(boot, "probe.efi", vcpus=2, nics=[])
    assert vm.wait_exit(60) == "guest-shutdown"
    trials.check(vm, EXPECTED)
    assert re.search(r"guest crash: p0=0x11 .* p4=0x19: it was a test \| \.\[31mreally$",
                     vm.host_text(), re.MULTILINE)
