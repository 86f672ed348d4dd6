/**
 * The default system call filter of a unit: what ordinary programs use is allowed, the rest of the kernel's surface is
 * not there (ENOSYS, so that programs fall back) or refused (EPERM). The form is that of the OCI runtime specification
 * (config-linux.md, "Seccomp"). CRIU suspends filters while it works and restores them, so they need not allow anything
 * for its sake.
 */

const ENOSYS = 38;
const EPERM = 1;
const EAFNOSUPPORT = 97;

interface SeccompRule {
  names: string[];
  action: string;
  errnoRet?: number;
  args?: { index: number; value: number; valueTwo?: number; op: string }[];
}

/** The `linux.seccomp` part of an OCI configuration. */
export interface SeccompProfile {
  defaultAction: string;
  defaultErrnoRet: number;
  architectures: string[];
  syscalls: SeccompRule[];
}

const files = `access faccessat faccessat2 chdir fchdir chmod fchmod fchmodat fchmodat2 chown fchown fchownat lchown chown32
  fchown32 lchown32 close close_range copy_file_range creat dup dup2 dup3 fadvise64 fadvise64_64 fallocate fcntl fcntl64
  fdatasync flock fstat fstat64 fstatat64 newfstatat fstatfs fstatfs64 fsync ftruncate ftruncate64 getcwd getdents
  getdents64 getxattr fgetxattr lgetxattr getxattrat listxattr flistxattr llistxattr listxattrat removexattr fremovexattr
  lremovexattr removexattrat setxattr fsetxattr lsetxattr setxattrat ioctl link linkat lseek _llseek lstat lstat64 mkdir
  mkdirat mknod mknodat name_to_handle_at open openat openat2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead
  readlink readlinkat readv rename renameat renameat2 rmdir sendfile sendfile64 splice stat stat64 statfs statfs64 statx
  symlink symlinkat sync sync_file_range sync_file_range2 arm_sync_file_range syncfs tee truncate truncate64 umask unlink
  unlinkat utime utimes utimensat utimensat_time64 futimesat vmsplice write writev file_getattr file_setattr cachestat
  statmount listmount quotactl_fd`;

const events = `epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd
  eventfd2 fanotify_mark inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents
  io_pgetevents io_pgetevents_time64 io_setup io_submit pipe pipe2 poll ppoll ppoll_time64 pselect6 pselect6_time64 select
  _newselect signalfd signalfd4 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64`;

const memory = `brk get_mempolicy madvise process_madvise mbind membarrier memfd_create memfd_secret mincore mlock mlock2
  mlockall mmap mmap2 mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect remap_file_pages
  set_mempolicy set_mempolicy_home_node map_shadow_stack process_mrelease`;

const processes = `capget capset execve execveat exit exit_group fork vfork get_robust_list set_robust_list getcpu getegid
  getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getpgid getpgrp getpid getppid getpriority getresgid
  getresgid32 getresuid getresuid32 getrlimit ugetrlimit getrusage getsid gettid getuid getuid32 ioprio_get ioprio_set kill
  pidfd_getfd pidfd_open pidfd_send_signal prctl arch_prctl prlimit64 sched_get_priority_max sched_get_priority_min
  sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64
  sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield set_tid_address setfsgid setfsgid32 setfsuid
  setfsuid32 setgid setgid32 setgroups setgroups32 setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid
  setresuid32 setreuid setreuid32 setrlimit setsid setuid setuid32 set_thread_area get_thread_area sysinfo tgkill times tkill
  uname wait4 waitid waitpid rseq seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self modify_ldt
  ptrace process_vm_readv process_vm_writev kcmp uretprobe`;

const signalsAndTime = `alarm pause restart_syscall rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
  rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaction sigaltstack signal sigpending sigprocmask
  sigreturn sigsuspend clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64
  clock_adjtime clock_adjtime64 adjtimex getitimer setitimer gettimeofday nanosleep time timer_create timer_delete
  timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 futex futex_time64 futex_waitv futex_wait
  futex_wake futex_requeue getrandom`;

const communication = `accept accept4 bind connect getpeername getsockname getsockopt setsockopt listen recv recvfrom recvmmsg
  recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto shutdown socketcall socketpair ipc msgctl msgget msgrcv msgsnd semctl
  semget semop semtimedop semtimedop_time64 shmat shmctl shmdt shmget mq_getsetattr mq_notify mq_open mq_timedreceive
  mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink`;

const armOnly = 'arm_fadvise64_64 breakpoint cacheflush set_tls';

// Dangerous to the host, or impossible to checkpoint (io_uring): refused clearly where programs look for a reason.
const refused = `acct add_key bpf delete_module finit_module init_module fanotify_init io_uring_enter io_uring_register
  io_uring_setup kexec_file_load kexec_load keyctl request_key lookup_dcookie nfsservctl open_by_handle_at perf_event_open
  pivot_root quotactl reboot setdomainname sethostname setns settimeofday stime clock_settime clock_settime64 swapoff swapon
  syslog sysfs _sysctl umount umount2 mount unshare uselib userfaultfd ustat vhangup vm86 vm86old move_pages migrate_pages
  fsopen fsconfig fsmount fspick move_mount open_tree open_tree_attr mount_setattr iopl ioperm`;

/** What a capability makes possible beyond the default. */
const withCapability: Readonly<Record<string, string>> = {
  CAP_SYS_ADMIN: `bpf fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount open_tree
    perf_event_open quotactl setdomainname sethostname setns syslog umount umount2 unshare pivot_root`,
  CAP_BPF: 'bpf',
  CAP_PERFMON: 'perf_event_open',
  CAP_DAC_READ_SEARCH: 'open_by_handle_at',
  CAP_SYS_BOOT: 'reboot',
  CAP_SYS_CHROOT: 'chroot',
  CAP_SYS_MODULE: 'delete_module init_module finit_module',
  CAP_SYS_PACCT: 'acct',
  CAP_SYS_PTRACE: 'process_madvise',
  CAP_SYS_RAWIO: 'iopl ioperm',
  CAP_SYS_TIME: 'settimeofday stime clock_settime clock_settime64',
  CAP_SYS_TTY_CONFIG: 'vhangup',
  CAP_SYS_NICE: 'move_pages migrate_pages',
  CAP_SYSLOG: 'syslog',
};

/** CLONE_NEW* of clone(2) except CLONE_NEWTIME, which clone cannot take. */
const namespaceFlags = 0x7e020000;

/** Address families that need no kernel code outside of everyday networking; above all not AF_VSOCK (the hypervisor). */
const socketFamilies = [1, 2, 10, 16, 17];

const architectures: Readonly<Record<string, string[]>> = {
  x64: ['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86', 'SCMP_ARCH_X32'],
  arm64: ['SCMP_ARCH_AARCH64', 'SCMP_ARCH_ARM'],
};

/** The default profile for a set of capabilities; `architecture` as in `process.arch`. */
export function defaultSeccomp(capabilities: readonly string[], architecture: string): SeccompProfile {
  const granted = new Set(capabilities.flatMap((name) => words(withCapability[name] ?? '')));
  const allowed = new Set([
    ...[files, events, memory, processes, signalsAndTime, communication].flatMap(words),
    ...(architecture === 'arm64' ? words(armOnly) : []),
    ...granted,
  ]);
  const mayMakeNamespaces = capabilities.includes('CAP_SYS_ADMIN');
  const denied = words(refused).filter((name) => !allowed.has(name));
  return {
    defaultAction: 'SCMP_ACT_ERRNO',
    defaultErrnoRet: ENOSYS,
    architectures: architectures[architecture] ?? [],
    syscalls: [
      { names: [...allowed].sort(), action: 'SCMP_ACT_ALLOW' },
      ...(denied.length > 0 ? [{ names: denied, action: 'SCMP_ACT_ERRNO', errnoRet: EPERM }] : []),
      // ADDR_NO_RANDOMIZE, ADDR_COMPAT_LAYOUT and the like are harmless; asking (0xffffffff) is too.
      ...[0, 0x8, 0x20000, 0x20008, 0x40000, 0xffffffff].map((value) => when('personality', 0, value)),
      ...socketFamilies.map((family) => when('socket', 0, family)),
      {
        names: ['socket'],
        action: 'SCMP_ACT_ERRNO',
        errnoRet: EAFNOSUPPORT,
        args: [{ index: 0, value: 17, op: 'SCMP_CMP_GT' }],
      },
      ...(mayMakeNamespaces
        ? [{ names: ['clone', 'clone3'], action: 'SCMP_ACT_ALLOW' }]
        : [
            {
              names: ['clone'],
              action: 'SCMP_ACT_ALLOW',
              args: [{ index: 0, value: namespaceFlags, valueTwo: 0, op: 'SCMP_CMP_MASKED_EQ' }],
            },
            // The flags of clone3 lie in memory, where a filter cannot see them; C libraries then use clone.
            { names: ['clone3'], action: 'SCMP_ACT_ERRNO', errnoRet: ENOSYS },
          ]),
    ],
  };
}

function words(text: string): string[] {
  return text.split(/\s+/).filter((word) => word !== '');
}

function when(name: string, index: number, value: number): SeccompRule {
  return { names: [name], action: 'SCMP_ACT_ALLOW', args: [{ index, value, op: 'SCMP_CMP_EQ' }] };
}
