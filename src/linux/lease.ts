import { fcntl, libc } from './libc.ts';

const F_SETOWN = 8;
const F_SETLEASE = 1024;
const F_GETLEASE = 1025;
const F_RDLCK = 0;
const F_WRLCK = 1;
const F_UNLCK = 2;

/**
 * A write lease on a file that nobody else has open (fcntl(2), F_SETLEASE): whoever opens it waits until the lease is given back, 45 s at the most
 * (/proc/sys/fs/lease-break-time), or this process has ended. Throws EAGAIN if the file is open elsewhere, EINVAL if the file system has
 * no leases.
 */
export class WriteLease {
  readonly #fd: number;

  /** `fd` stays the caller's. */
  constructor(fd: number) {
    this.#fd = fd;
    fcntl(fd, F_SETLEASE, F_WRLCK);
    // Nobody gets SIGIO; it is asked for by `wanted`.
    fcntl(fd, F_SETOWN, 0);
  }

  /** Whether somebody waits for the file. */
  get wanted(): boolean {
    // What a lease that is being broken is to become; one that is gone is F_UNLCK.
    return fcntl(this.#fd, F_GETLEASE) === F_RDLCK;
  }

  release(): void {
    releaseLease(this.#fd);
  }
}

/** Gives the lease on an open file back, if there is one. */
export function releaseLease(fd: number): void {
  libc().fcntl(fd, F_SETLEASE, F_UNLCK);
}
