/**
 * What CRIU's error lines mean: a table from their text to a reason and a remedy.
 *
 * The texts are those of CRIU 4.x (criu/*.c, compel/); `message` completes "… failed: ".
 */

import type { ErrorClass } from '../errors.ts';

export interface FailureCause {
  /** Stable code of the CairnError. */
  code: string;
  class: ErrorClass;
  pattern: RegExp;
  /** From the pattern's groups; `process` is ` of process 123`, or empty. */
  message: (match: RegExpExecArray, process: string) => string;
  remedy: string;
}

const inContainer = 'Start the program with `cairn run`, which gives it all it needs inside the job.';

/** Terminals, sessions and processes. */
const processCauses: FailureCause[] = [
  {
    code: 'session-outside',
    class: 'permanent',
    pattern: /The root process (\d+) is not a session leader/,
    message: (m) => `process ${m[1]} belongs to a session that began outside the job (a shell's terminal)`,
    remedy: `Start it in a session of its own (setsid), or as a job of Cairn's. ${inContainer}`,
  },
  {
    code: 'session-outside',
    class: 'permanent',
    pattern: /A session leader of (?:zombie process )?(\d+)\((\d+)\) is outside of its pid namespace/,
    message: (m) => `the session of process ${m[1]} was begun by a process outside the job`,
    remedy: `Programs entered into a job from outside (\`cairn exec\`) must have ended. ${inContainer}`,
  },
  {
    code: 'session-outside',
    class: 'permanent',
    pattern: /Can't find a session leader for (\d+)/,
    message: (m) => `the process that began session ${m[1]} has ended`,
    remedy: inContainer,
  },
  {
    code: 'terminal-outside',
    class: 'permanent',
    pattern: /Found dangling tty with sid (\d+) pgid (\d+) \((\w+)\) on peer fd (\d+)/,
    message: (m) => `descriptor ${m[4]} is a terminal of session ${m[1]}, which is not part of the job`,
    remedy:
      'Use `cairn run -it` for a terminal that belongs to the job, or close the terminal in the program.',
  },
  {
    code: 'terminal-outside',
    class: 'permanent',
    pattern: /Found slave peer index (\d+) without correspond master peer/,
    message: (m) => `the other end of terminal /dev/pts/${m[1]} is held outside the job`,
    remedy: 'Use `cairn run -it` for a terminal that belongs to the job.',
  },
  {
    code: 'terminal-outside',
    class: 'permanent',
    pattern: /ctty inheritance detected sid\/pgrp (\d+)/,
    message: (m) => `the controlling terminal of session ${m[1]} was inherited from outside the job`,
    remedy: 'Use `cairn run -it` for a terminal that belongs to the job.',
  },
  {
    code: 'terminal-missing',
    class: 'argument',
    pattern: /Don't have tty to inherit session from/,
    message: () => 'the job has a terminal from outside, and the restart was given none',
    remedy: 'Restart it with a terminal (`cairn restart -it`).',
  },
  {
    code: 'process-traced',
    class: 'temporary',
    pattern: /Unseizable non-zombie (\d+) found, state (\w), err (-?\d+)\/(\d+)/,
    message: (m) => `process ${m[1]} (state ${m[2]}) cannot be traced; a debugger or strace may hold it`,
    remedy: 'Detach the debugger, then try again.',
  },
  {
    code: 'process-traced',
    class: 'temporary',
    pattern: /SEIZE (\d+): can't (?:wait task|interrupt task)/,
    message: (m) => `process ${m[1]} could not be stopped`,
    remedy: 'Detach a debugger that may hold it, then try again.',
  },
  {
    code: 'criu-inside-tree',
    class: 'argument',
    pattern: /The criu itself is within dumped tree/,
    message: () => 'CRIU was started from inside the job that it should save',
    remedy: 'Checkpoint the job from outside.',
  },
  {
    code: 'process-changed',
    class: 'temporary',
    pattern: /Task pid reused while suspending \((\d+)/,
    message: (m) => `PID ${m[1]} was reused while the tree was being stopped`,
    remedy: 'Try again.',
  },
  {
    code: 'thread-stopped',
    class: 'temporary',
    pattern:
      /Individually stopped threads not supported|Zombies? (?:with threads|thread)s? (?:is|are )?not supported/,
    message: () => 'a thread has ended or is stopped while its process runs on',
    remedy: 'Try again when that has changed.',
  },
  {
    code: 'signal-pending',
    class: 'temporary',
    pattern: /Can't dump the (\d+) thread with a pending SIGTRAP/,
    message: (m) => `thread ${m[1]} has a pending SIGTRAP`,
    remedy: 'Try again.',
  },
  {
    code: 'freeze-timeout',
    class: 'temporary',
    pattern:
      /Timeout reached\. Try to interrupt|Unable to interrupt the current operation|Unable to freeze cgroup (\S+)/,
    message: () => 'the tree could not be stopped in time; a process may hang in the kernel (state D)',
    remedy:
      'Look for processes in state D (`ps -eo pid,stat,wchan,args`), then try again, with a longer --timeout if need be.',
  },
  {
    code: 'rlimit-refused',
    class: 'environment',
    pattern: /Can't get rlimit (\d+): Operation not permitted/,
    message: (_, process) =>
      `reading the limits${process} was refused: root lacks CAP_SYS_RESOURCE here, and the process has another user id`,
    remedy: 'Run it as a job of Cairn (`cairn run`), in a user namespace, or give Cairn CAP_SYS_RESOURCE.',
  },
  {
    code: 'capability-missing',
    class: 'environment',
    pattern: /Running as non-root requires|(CAP_[A-Z_]+).*(?:missing|required|not permitted)/i,
    message: (m) => `CRIU lacks the capability ${m[1] ?? 'CAP_CHECKPOINT_RESTORE (it does not run as root)'}`,
    remedy: 'Run the daemon as root with that capability; `cairn doctor` lists what is missing.',
  },
  {
    code: 'memory-mapping-unsupported',
    class: 'permanent',
    pattern: /Unsupported mapping found ([0-9a-f]+)-([0-9a-f]+)/,
    message: (m, process) => `memory ${m[1]}-${m[2]}${process} is mapped from a device (GPU, RDMA, io_uring)`,
    remedy:
      'Close the device in the program before the checkpoint, or use a checkpointer of its own (`self`).',
  },
  {
    code: 'memory-mapping-unsupported',
    class: 'permanent',
    pattern: /handle_device_vma plugin failed/,
    message: (_, process) => `memory${process} is mapped from a device that no plug-in of CRIU saves`,
    remedy: 'Close the device in the program before the checkpoint.',
  },
  {
    code: 'vdso-unknown',
    class: 'environment',
    pattern: /Unexpected rt vDSO area bounds|Can't find (?:rt vDSO|vDSO\/VVAR bounds)|Can't fixup vdso VMAs/,
    message: () => 'this CRIU does not know the vDSO of this kernel (it is too old for it)',
    remedy: 'Run `sudo npm run setup`, which installs a newer CRIU.',
  },
  {
    code: 'rseq-unknown',
    class: 'environment',
    pattern: /has rseq but kernel lacks get_rseq_conf|unsupported RSEQ ABI version/,
    message: () => 'the program uses restartable sequences, which this kernel does not let CRIU read',
    remedy: 'Use Linux 5.13 or newer, or start the program with GLIBC_TUNABLES=glibc.pthread.rseq=0.',
  },
  {
    code: 'ipc-outside',
    class: 'permanent',
    pattern: /Task (\d+) with SysVIPC shmem map @([0-9a-f]+) doesn't live in IPC ns/,
    message: (m) => `process ${m[1]} uses System V shared memory of the host`,
    remedy: `It needs an IPC namespace of its own. ${inContainer}`,
  },
  {
    code: 'ipc-unsupported',
    class: 'permanent',
    pattern: /Sysv shmem ([0-9a-f]+) with (?:a hole|tail hole|misordered attach chunks)/,
    message: (m) => `System V shared memory ${m[1]} is attached only in part`,
    remedy: 'Attach the segment as a whole.',
  },
  {
    code: 'namespace-nested',
    class: 'permanent',
    pattern: /Can't dump nested (\w+) namespace for (\d+)/,
    message: (m) =>
      `process ${m[2]} has a ${m[1]} namespace of its own inside the job (a sandbox or container in the job)`,
    remedy: 'Run that part as a job of its own, or switch its sandbox off.',
  },
  {
    code: 'namespace-outside',
    class: 'permanent',
    pattern: /Can't dump a pid namespace without the process init/,
    message: () => 'the root of the tree is not the first process of its PID namespace',
    remedy: 'Checkpoint the whole container, not one process in it.',
  },
];

/** Descriptors: files, sockets, locks. */
const descriptorCauses: FailureCause[] = [
  {
    code: 'io-uring',
    class: 'permanent',
    pattern: /Can't dump file (\d+) of that type \[\d+\] \(.*io_uring.*\)/,
    message: (m, process) => `descriptor ${m[1]}${process} is an io_uring, which cannot be saved`,
    remedy:
      'Switch io_uring off in the program (for example UV_USE_IO_URING=0, `aio=threads`), or kernel.io_uring_disabled=2.',
  },
  {
    code: 'device-open',
    class: 'permanent',
    pattern: /Can't dump file (\d+) of that type \[(?:20|60|02|06)\d+\] \((\S*) ?(.*)\)/,
    message: (m, process) =>
      `descriptor ${m[1]}${process} is a device that cannot be saved (${m[2]} ${m[3]})`.trim(),
    remedy: 'Close the device in the program before the checkpoint.',
  },
  {
    code: 'descriptor-unsupported',
    class: 'permanent',
    pattern: /Can't dump file (\d+) of that type \[(\d+)\] \((.*)\)/,
    message: (m, process) =>
      `descriptor ${m[1]}${process} is of a kind that cannot be saved (${(m[3] ?? '').trim()})`,
    remedy: 'Close it in the program before the checkpoint.',
  },
  {
    code: 'unlinked-too-large',
    class: 'argument',
    pattern: /Can't dump ghost file (\S+) of (\d+) size, increase limit/,
    message: (m) => `the unlinked file ${m[1]} has ${m[2]} bytes, more than the limit`,
    remedy: 'Raise the limit for unlinked files of the job.',
  },
  {
    code: 'unlinked-linked-elsewhere',
    class: 'argument',
    pattern: /Can't create link remap for (\S+)\./,
    message: (m) => `the open file ${m[1]} was unlinked but has another name`,
    remedy: 'Allow link remaps for the job.',
  },
  {
    code: 'file-locks',
    class: 'argument',
    pattern: /Some file locks are hold by dumping tasks/,
    message: () => 'the program holds file locks',
    remedy: 'Allow file locks for the job: they are taken again at the restart.',
  },
  {
    code: 'mount-unknown',
    class: 'permanent',
    pattern: /Can't lookup mount=(-?\d+) for fd=(-?\d+) path=(\S*)/,
    message: (m) =>
      m[2] === '-1' || m[2] === '-3'
        ? `${m[3]} lies on a mount outside the job`
        : `descriptor ${m[2]} (${m[3]}) lies on a mount outside the job: it was inherited when the job was started`,
    remedy: 'Start the job with its output on a pipe or on a file inside the job.',
  },
  {
    code: 'file-overmounted',
    class: 'permanent',
    pattern: /Open files on overmounted mounts are not supported yet; mount=(\d+) fd=(-?\d+) path=(\S*)/,
    message: (m) => `descriptor ${m[2]} (${m[3]}) lies below a mount that hides it`,
    remedy: 'Close the file, or remove the mount above it.',
  },
  {
    code: 'file-replaced',
    class: 'permanent',
    pattern: /Unaccessible path opened (\d+:\d+), need (\d+:\d+)/,
    message: () => 'an open file cannot be reached by its path any more',
    remedy: 'Close it in the program, or do not replace directories that are in use.',
  },
  {
    code: 'tcp-established',
    class: 'argument',
    pattern: /Connected TCP socket, consider using/,
    message: () => 'the program has established TCP connections',
    remedy: 'Choose what becomes of them: keep them (`tcp: established`) or close them (`tcp: close`).',
  },
  {
    code: 'tcp-established',
    class: 'argument',
    pattern: /Connected TCP socket in image|Need to set the --tcp-close options/,
    message: () => 'the snapshot holds TCP connections, and the restart does not say what becomes of them',
    remedy: 'Restart it with the same TCP policy as the checkpoint.',
  },
  {
    code: 'tcp-in-flight',
    class: 'temporary',
    pattern: /In-flight connection .*(\d+)|Found a closed in-flight socket/i,
    message: () => 'a listening socket has connections that the program has not accepted yet',
    remedy: 'Try again, or let such connections be dropped.',
  },
  {
    code: 'tcp-lock-failed',
    class: 'environment',
    pattern: /Failed to lock TCP connection ([0-9a-f]+)/,
    message: () => 'TCP connections could not be locked',
    remedy: 'Install nftables (`nft`), or lock the network of the job beforehand.',
  },
  {
    code: 'socket-passcred',
    class: 'environment',
    pattern: /Can't (?:get|set) 1:16 opt/,
    message: () => 'this CRIU asks inet sockets for SO_PASSCRED, which kernels from 6.16 on refuse',
    remedy: 'Run `sudo npm run setup`, which installs CRIU 4.2 or newer.',
  },
  {
    code: 'socket-unsupported',
    class: 'permanent',
    pattern:
      /Unsupported proto (\d+) for socket|Can't dump (\d+) inet socket|Unsupported socket family: (\d+)|Unsupported type \((\d+)\) on socket|Can't dump corked dgram socket/,
    message: (_, process) =>
      `a socket${process} is of a kind that cannot be saved (packet family, raw protocol, RDMA, vsock)`,
    remedy: 'Close it in the program before the checkpoint.',
  },
  {
    code: 'unix-peer-outside',
    class: 'permanent',
    pattern: /External socket is used\./,
    message: (_, process) => `a unix socket${process} is connected to a process outside the job`,
    remedy: 'Close the connection (system bus, display, agent) in the program before the checkpoint.',
  },
  {
    code: 'unix-peer-outside',
    class: 'permanent',
    pattern: /Can't dump half of stream unix connection\. name: (.*); peer name: (.*)/,
    message: (m) => `the unix connection ${m[1]} to ${m[2]} leads outside the job`,
    remedy: 'Close the connection (system bus, display, agent) in the program before the checkpoint.',
  },
  {
    code: 'unix-peer-outside',
    class: 'permanent',
    pattern: /Can't dump name-less external socket|Unix socket (\d+) with(?:out| unreachable) peer/,
    message: () => 'one end of a socket pair is held outside the job',
    remedy: 'Start the job through Cairn, so that its input and output are pipes.',
  },
  {
    code: 'unix-message-unsupported',
    class: 'temporary',
    pattern: /Control messages in queue, not supported|Can't find fdesc to send/,
    message: () => 'a unix socket holds a message with descriptors that has not been received',
    remedy: 'Try again.',
  },
  {
    code: 'inotify-unsupported',
    class: 'permanent',
    pattern: /fsnotify: .*Can't dump that handle/,
    message: () => 'a watched file (inotify, fanotify) cannot be found by its path',
    remedy: 'Remove watches on files that are gone, or keep them on a file system with file handles.',
  },
];

/** Mounts, cgroups, security, and what only a restore meets. */
const hostCauses: FailureCause[] = [
  {
    code: 'mount-unsupported',
    class: 'permanent',
    pattern: /FS mnt (\S+) dev (0x[0-9a-f]+) root (\S+) unsupported id (\d+)/,
    message: (m) => `the mount ${m[1]} is of a file system that cannot be saved`,
    remedy: 'Do not mount it in the job, or declare it as a mount of the job.',
  },
  {
    code: 'mount-outside',
    class: 'permanent',
    pattern: /(\d+):(\S+) doesn't have a proper root mount|Mount (?:\d+) (\S+) .*has unreachable sharing/,
    message: (m) => `the mount ${m[2] ?? m[3]} comes from outside the job and is not declared`,
    remedy: 'Declare it as a mount of the job.',
  },
  {
    code: 'mount-failed',
    class: 'environment',
    pattern:
      /mnt(?:-v2)?: (?:Can't|Unable to|Failed to) ?(?:mount|bind-mount|open|restore|create)[^:]*:? ?(.*)/,
    message: (m) => `a mount of the job could not be made again (${m[0].replace(/^mnt(?:-v2)?: /, '')})`,
    remedy: 'Check that the directories that are mounted into the job exist on this node.',
  },
  {
    code: 'cgroup-failed',
    class: 'environment',
    pattern: /cg: (.*)|Can't make cgroup dir (\S+)|cgroupd: (.*)/,
    message: (m) => `a cgroup could not be handled (${m[1] ?? m[2] ?? m[3]})`,
    remedy:
      'Let Cairn make the cgroups (the default), and see `cairn doctor` for the cgroup set-up of this host.',
  },
  {
    code: 'user-namespace-failed',
    class: 'environment',
    pattern: /(?:setgid|setuid) failed while joining userns|Can't (?:set|write) (?:uid|gid)_map|userns: (.*)/,
    message: () => 'the user namespace of the job could not be made again',
    remedy: 'Check user.max_user_namespaces and kernel.unprivileged_userns_clone.',
  },
  {
    code: 'namespace-refused',
    class: 'environment',
    pattern: /Can't setns (?:\d+\/\w+)?.*: Operation not permitted|Can't setns: Operation not permitted/,
    message: () => 'a namespace of the host cannot be joined from the user namespace of the job',
    remedy: 'Restore the job with a network namespace of its own.',
  },
  {
    code: 'pid-taken',
    class: 'temporary',
    pattern: /Can't fork for (\d+): File exists/,
    message: (m) => `PID ${m[1]} is taken`,
    remedy: 'End the process that has it, or restore the job in a PID namespace of its own.',
  },
  {
    code: 'pid-taken',
    class: 'temporary',
    pattern: /Pid (\d+) do(?:es)? not match expected (\d+)/,
    message: (m) => `PID ${m[2]} could not be had`,
    remedy: 'End the process that has it, or restore the job in a PID namespace of its own.',
  },
  {
    code: 'file-changed',
    class: 'permanent',
    pattern: /File (\S+) has bad size (\d+) \(expect (\d+)\)/,
    message: (m) => `the file ${m[1]} has ${m[2]} bytes, at the checkpoint it had ${m[3]}`,
    remedy: 'Bring back the file as it was, or keep it in the snapshot (files policy `copy`).',
  },
  {
    code: 'file-changed',
    class: 'permanent',
    pattern: /File (\S+) has bad build-ID/,
    message: (m) => `the program or library ${m[1]} is another build than at the checkpoint`,
    remedy: 'Install the same version as at the checkpoint, or keep programs in the snapshot.',
  },
  {
    code: 'file-changed',
    class: 'permanent',
    pattern: /File (\S+) has bad mode 0(\d+) \(expect 0(\d+)\)/,
    message: (m) => `the file ${m[1]} has mode ${m[2]}, at the checkpoint it had ${m[3]}`,
    remedy: 'Set the mode back.',
  },
  {
    code: 'file-missing',
    class: 'permanent',
    pattern: /Can't open file (\S+?)(?: on restore)?: No such file or directory/,
    message: (m) => `the file ${m[1]} is missing on this node`,
    remedy: 'Bring it back, or keep it in the snapshot (files policy `copy`).',
  },
  {
    code: 'address-taken',
    class: 'temporary',
    pattern: /Can't bind inet socket \(id (\d+)\): Address already in use/,
    message: () => 'an address and port of the job is in use on this node',
    remedy: 'End the program that listens there, or give the job an address of its own.',
  },
  {
    code: 'address-missing',
    class: 'environment',
    pattern: /(?:Can't (?:bind|connect) inet socket|inet: .*bind).*: Cannot assign requested address/,
    message: () => 'an address of the job does not exist on this node',
    remedy: 'Restore the job with its own network, so that the address moves with it.',
  },
  {
    code: 'cpu-mismatch',
    class: 'environment',
    pattern:
      /CPU (?:instruction )?capabilities do not match run time|FPU feature required by image|CPU xfeatures has unsupported bits|CPU xsave (?:max )?size mismatch|FPU xsave area present/,
    message: () => 'the CPU of this node lacks features that the job uses',
    remedy: 'Restore it on a node with the same or a newer CPU.',
  },
  {
    code: 'security-module',
    class: 'environment',
    pattern: /(apparmor|selinux) LSM specified but|mismatched lsm types|can't render profile/,
    message: () => 'the security module of this node is another one than at the checkpoint',
    remedy: 'Restore it on a node with the same security module.',
  },
  {
    code: 'userfaultfd-missing',
    class: 'environment',
    pattern:
      /(?:Non-cooperative )?UFFD is not supported|userfaultfd.*(?:not supported|Operation not permitted)/,
    message: () => 'the kernel has no userfaultfd, which a restart without waiting for memory needs',
    remedy: 'Restart without --lazy.',
  },
  {
    code: 'memory-tracking-missing',
    class: 'environment',
    pattern: /Tracking memory is not available|Can't (?:reset|clear) .*dirty|soft-dirty/i,
    message: () => 'the kernel cannot track written memory (no soft-dirty)',
    remedy: 'Use Cairn own pre-save, which does not need it.',
  },
  {
    code: 'pipe-size',
    class: 'environment',
    pattern:
      /tee: .*: Operation not permitted|page-pipe: .*pipe.*(?:Operation not permitted|Cannot allocate)/,
    message: () => 'the pipes that hold the memory of a waiting dump cannot be made large enough',
    remedy: 'Run `sysctl -w fs.pipe-max-size=1073741824`, or `cairn doctor --fix`.',
  },
  {
    code: 'image-unreadable',
    class: 'permanent',
    pattern:
      /Magic doesn't match for (\S+)|Not supported images version (\d+)|Unexpected EOF on (\S+)|Reached EOF unexpectedly while reading page|Failed unpacking object|Corrupted/,
    message: (m) => `an image could not be read (${m[0]})`,
    remedy: 'Verify the snapshot (`cairn verify`), and use a CRIU at least as new as at the checkpoint.',
  },
  {
    code: 'streamer-lost',
    class: 'temporary',
    pattern:
      /Unable to connect to image streamer socket|Failed to communicate with the image streamer|(?:Can't|Unable to) (?:write|send|splice).*Broken pipe/,
    message: () => 'the connection between CRIU and Cairn broke',
    remedy: 'Look at the log of the daemon for the reason.',
  },
  {
    code: 'page-server-lost',
    class: 'temporary',
    pattern:
      /Remote side closed connection|The page server doesn't answer|Error reading data from page server|Restorer unexpectedly closed/,
    message: () => 'the connection that brings memory broke',
    remedy: 'The snapshot is unharmed: restart the job again.',
  },
  {
    code: 'hook-failed',
    class: 'temporary',
    pattern:
      /(?:Pre dump|Pre-stream|Network unlock|Post[- ]restore|Setup-namespaces?|.*[Ss]cript) (?:script )?failed with (-?\d+)|One of more action scripts failed/,
    message: () => 'a script that Cairn runs during it failed',
    remedy: 'Look at the log of the daemon for the reason.',
  },
];

/** Causes that any step may have; asked only when no other line says more. */
const generalCauses: FailureCause[] = [
  {
    code: 'no-space',
    class: 'temporary',
    pattern: /: No space left on device/,
    message: () => 'no space was left on the disk',
    remedy: 'Make room (`cairn snapshots`, `df -h`), then try again.',
  },
  {
    code: 'no-memory',
    class: 'temporary',
    pattern: /: Cannot allocate memory/,
    message: () => 'memory ran out',
    remedy: 'Free memory or raise the limit of the cgroup, then try again.',
  },
  {
    code: 'descriptors-exhausted',
    class: 'temporary',
    pattern: /: Too many open files/,
    message: () => 'the limit of open files was reached',
    remedy: 'Raise the limit (LimitNOFILE of the daemon).',
  },
  {
    code: 'process-gone',
    class: 'temporary',
    pattern: /: No such process|A root task is dead/,
    message: () => 'a process of the tree ended meanwhile',
    remedy: 'Try again if the job still runs.',
  },
  {
    code: 'not-permitted',
    class: 'environment',
    pattern: /: Operation not permitted/,
    message: () => 'the kernel refused an operation',
    remedy: 'See `cairn doctor` for missing capabilities.',
  },
];

/** All causes; earlier entries win over later ones for the same line. */
export const failureCauses: readonly FailureCause[] = [...processCauses, ...descriptorCauses, ...hostCauses];
export const generalFailureCauses: readonly FailureCause[] = generalCauses;
