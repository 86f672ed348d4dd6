import type { FailureCause } from './cause.ts';

const inContainer = 'Start the program with `cairn run`, which gives it all it needs inside the job.';

/** Terminals, sessions and processes. */
export const processCauses: FailureCause[] = [
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
