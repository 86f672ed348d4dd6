import type { FailureCause } from './cause.ts';

/** Mounts, cgroups, security, and what only a restore meets. */
export const hostCauses: FailureCause[] = [
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
    remedy: "Use Cairn's own pre-save, which does not need it.",
  },
  {
    code: 'pipe-size',
    class: 'environment',
    pattern:
      /tee: .*: Operation not permitted|page-pipe: .*pipe.*(?:Operation not permitted|Cannot allocate)/,
    message: () => 'the pipes that hold the memory of a waiting dump cannot be made large enough',
    remedy: 'Run `sudo npm run setup`, or `sysctl -w fs.pipe-max-size=1073741824`.',
  },
  {
    code: 'pipe-pages',
    class: 'environment',
    pattern: /Can't restore pipe size: Operation not permitted/,
    message: () =>
      'a pipe of the job could not get its size: all pipes of its user together have too many pages',
    remedy:
      'Run `sudo npm run setup`, or `sysctl -w fs.pipe-user-pages-soft=0`; or try again when no job is being saved.',
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
export const generalCauses: FailureCause[] = [
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
