// SPDX-License-Identifier: BSD-2-Clause
// The error numbers that functions return negated; values as on Linux, so that unit tests agree.
#pragma once

#define EIO 5
#define ENXIO 6
#define ENOMEM 12
#define EBUSY 16
#define ENODEV 19
#define EINVAL 22
#define ENOSPC 28
#define EPROTO 71
#define EPROTONOSUPPORT 93
#define EOPNOTSUPP 95
#define EADDRINUSE 98
#define ENOTCONN 107
#define ETIMEDOUT 110
