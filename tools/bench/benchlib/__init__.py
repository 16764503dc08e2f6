# SPDX-License-Identifier: BSD-2-Clause
"""The parts of tools/bench/bench. What is measured: cases; on which guests: guests; how: workloads
and observe; what it comes to: results; how that is shown: report and chart."""
