# SPDX-License-Identifier: BSD-2-Clause
# The benchmark's load generator. Included by the Makefile.
build/bench/load: tools/bench/load.c
	@mkdir -p $(@D)
	@gcc -std=gnu11 -O2 -Wall -Wextra -Werror -o $@ $<
