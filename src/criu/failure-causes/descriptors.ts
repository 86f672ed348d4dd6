import type { FailureCause } from './cause.ts';

/** Descriptors: files, sockets, locks. */
export const descriptorCauses: FailureCause[] = [
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
    pattern: /Can't dump file (\d+) of that type \[(?:20|60)\d{3}\] \((\S*) ?(.*)\)/,
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
