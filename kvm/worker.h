/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LUNFS_KVM_WORKER_H
#define LUNFS_KVM_WORKER_H

/** vm_worker_run() - the half of lunvm that is the machine: --role=worker.  Never returns. */
void vm_worker_run(void) __attribute__((noreturn));

#endif
