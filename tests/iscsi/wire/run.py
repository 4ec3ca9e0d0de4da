#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What no initiator of Debian does, on the wire: single PDUs to a real lunfs-target.

run.py [PART…]: the cases whose names contain one of PARTs, or all.
"""
import sys

import cases_data
import cases_fence
import cases_login
import cases_order
import cases_reload
from harness import Suite


def main():
    suite = Suite()
    cases = cases_login.CASES + cases_data.CASES + cases_order.CASES + (
        cases_fence.CASES + cases_reload.CASES)
    wanted = sys.argv[1:]
    for case in cases:
        if not wanted or any(w in case.__name__ for w in wanted):
            suite.run(case)
    suite.stop()
    print("  note: iscsi wire: %d cases with %d variants" % (suite.passed + suite.failed,
                                                             suite.checks))
    return 1 if suite.failed or not suite.passed else 0


if __name__ == "__main__":
    sys.exit(main())
