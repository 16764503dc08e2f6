// SPDX-License-Identifier: BSD-2-Clause
// What we call ourselves to the host: the guest OS id (hyperv_regs.h) and the KVP service say the same.
#pragma once

#define DUNLIN_MAJOR "1"
#define DUNLIN_MINOR "0"
#define DUNLIN_BUILD "0"
#define DUNLIN_VERSION DUNLIN_MAJOR "." DUNLIN_MINOR "." DUNLIN_BUILD
