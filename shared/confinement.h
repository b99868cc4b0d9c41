// Confinement: what a process gives up before it meets input that it did not make. One-way: nothing
// here can be undone, and children inherit it.
//
//   give_up_privileges   every process, first thing: no core file, no reading of its memory by
//   other
//                        processes of the user, no new privileges through exec
//   confine_service      the parent, before its first child: what no process of Sluice ever calls
//                        (other processes' memory, mounts, namespaces, kernel modules, clocks, ...)
//   confine_gateway      the gateway, once it listens: starts no program
//   confine_worker       a worker, once its model is loaded: an allow-list (DeviceAccess::none)
//
// A denied call fails with EPERM, so that a library that merely probes does not take the streams of
// a worker with it. Starting a program and reaching into another process end the process (SIGSYS):
// no library does that by the way, so the process has been taken over.
// Filters are seccomp-BPF for all threads of the process, made by libseccomp. They don't check what
// pointers point to (file names, addresses): the worker's list therefore has no call that opens.
// Thread rule: any; call before or after further threads exist.
#pragma once

#include <cstdint>

#include "shared/result.h"

namespace sluice {

// What an executor still needs after it has loaded.
enum class DeviceAccess : std::uint8_t {
  none,   // memory, its descriptors, the clock
  files,  // an accelerator's driver: device files, ioctl, threads. No sockets, no programs
};

void give_up_privileges();

// Errors: io_error, the kernel refuses the filter. Sanitizer builds install none and succeed: their
// run-time libraries open files, start programs and trace (has_confinement() says so).
Result<void> confine_service();
Result<void> confine_gateway();
// `control_fd` is the one descriptor that messages may be sent over.
Result<void> confine_worker(DeviceAccess access, int control_fd);

bool has_confinement();

}  // namespace sluice
