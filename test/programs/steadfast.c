/*
 * A program that never stops checking itself: memory, a file in its writable layer and a connection are written, and compared with
 * what they must be, round after round. For tests that disturb it at any moment.
 *
 *   steadfast MIB      MIB: size of its memory, all of which changes during 16 rounds
 *   stdout             "whole ROUND" every 16 rounds: everything has been compared; "WRONG: what" ends it
 */
#include "probe.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>

#define SLICES 16
#define BLOCKS 64
#define BLOCK_BYTES 65536

static uint64_t block[BLOCK_BYTES / 8];

static void fill(uint64_t *to, size_t bytes, uint64_t seed) {
  uint64_t x = seed * 0x9e3779b97f4a7c15u + 1;
  for (size_t i = 0; i < bytes / 8; i++) {
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    to[i] = x;
  }
}

static int holds(const uint64_t *at, size_t bytes, uint64_t seed) {
  uint64_t x = seed * 0x9e3779b97f4a7c15u + 1, difference = 0;
  for (size_t i = 0; i < bytes / 8; i++) {
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    difference |= at[i] ^ x;
  }
  return difference == 0;
}

__attribute__((noreturn, format(printf, 1, 2))) static void wrong(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  probe_say("WRONG: ", format, arguments);
  exit(1);
}

/* Waits until there is something to read before it reads, as servers do. */
static ssize_t receive(int fd, void *to, size_t bytes) {
  struct pollfd readable = {.fd = fd, .events = POLLIN};
  while (poll(&readable, 1, 30000) < 0)
    if (errno != EINTR) return -1;
  if (!readable.revents) return errno = ETIMEDOUT, -1;
  return read(fd, to, bytes);
}

/* A child that sends everything back: one established connection, both ends in this unit. */
static int connect_to_echo(void) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t length = sizeof address;
  int listener = MUST(socket(AF_INET, SOCK_STREAM, 0));
  MUST(bind(listener, (void *)&address, length));
  MUST(getsockname(listener, (void *)&address, &length));
  MUST(listen(listener, 1));
  int client = MUST(socket(AF_INET, SOCK_STREAM, 0));
  MUST(connect(client, (void *)&address, length));
  int server = MUST(accept(listener, NULL, NULL));
  if (MUST(fork()) == 0) {
    close(client);
    char buffer[64];
    for (ssize_t n; (n = receive(server, buffer, sizeof buffer)) > 0;)
      if (write(server, buffer, n) != n) break;
    _exit(0);
  }
  close(server);
  close(listener);
  return client;
}

int main(int argc, char **argv) {
  size_t bytes = (argc > 1 ? strtoul(argv[1], NULL, 10) : 64) << 20, slice = bytes / SLICES;
  /* First, so that the child does not share the memory. */
  int client = connect_to_echo();
  char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) probe_die("mmap");
  uint64_t in_slice[SLICES], in_block[BLOCKS];
  for (int i = 0; i < SLICES; i++) fill((void *)(memory + i * slice), slice, in_slice[i] = i);
  int file = MUST(open("/tmp/steadfast", O_RDWR | O_CREAT | O_TRUNC, 0600));
  for (int i = 0; i < BLOCKS; i++) {
    fill(block, BLOCK_BYTES, in_block[i] = i);
    if (pwrite(file, block, BLOCK_BYTES, (off_t)i * BLOCK_BYTES) != BLOCK_BYTES) probe_die("write");
  }

  for (uint64_t round = 1;; round++) {
    uint64_t *place = (void *)(memory + round % SLICES * slice);
    if (!holds(place, slice, in_slice[round % SLICES])) wrong("memory slice %d in round %lu", (int)(round % SLICES), round);
    fill(place, slice, in_slice[round % SLICES] = round);
    /* Four blocks are compared and one is written in each round. */
    for (int i = 0; i < 4; i++) {
      int number = (round * 4 + i) % BLOCKS;
      ssize_t got = pread(file, block, BLOCK_BYTES, (off_t)number * BLOCK_BYTES);
      if (got != BLOCK_BYTES || !holds(block, BLOCK_BYTES, in_block[number])) wrong("file block %d in round %lu", number, round);
    }
    fill(block, BLOCK_BYTES, in_block[round % BLOCKS] = round);
    if (pwrite(file, block, BLOCK_BYTES, (off_t)(round % BLOCKS) * BLOCK_BYTES) != BLOCK_BYTES)
      wrong("writing the file in round %lu: %s", round, strerror(errno));
    uint64_t echo = 0;
    if (send(client, &round, sizeof round, MSG_NOSIGNAL) != sizeof round) wrong("sending in round %lu: %s", round, strerror(errno));
    if (receive(client, &echo, sizeof echo) != sizeof echo || echo != round)
      wrong("the connection in round %lu: %s", round, strerror(errno));
    char line[64];
    int length = snprintf(line, sizeof line, "whole %lu\n", round);
    if (round % SLICES == 0 && write(1, line, length) != length) return 2;
    probe_pause(20);
  }
}
