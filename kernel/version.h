// SPDX-License-Identifier: BSD-2-Clause
// What we call ourselves to the host: the guest OS id (hyperv_regs.h) and the KVP service say the same
// version; the service's build number comes from kernel.mk, and is 0 in unit tests.
#pragma once

#define DUNLIN_MAJOR "1"
#define DUNLIN_MINOR "0"
#ifndef DUNLIN_BUILD
#define DUNLIN_BUILD "0"
#endif
#define DUNLIN_VERSION DUNLIN_MAJOR "." DUNLIN_MINOR "." DUNLIN_BUILD
