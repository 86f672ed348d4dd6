/* R04: 64 threads keep general, SSE, AVX and AVX-512 registers, the x87 stack and both control words while they are live. */
#include <pthread.h>
#include "probe.h"

#ifndef __x86_64__
int main(void) { probe_skip("the register test is written for x86-64"); }
#else

#define THREADS 64

/* What a thread loads before and stores after it was held; the offsets are used by the assembly below. */
struct registers {
  uint64_t general[10];     /* 0: rbx rdx rsi r8 r9 r10 r12 r13 r14 r15 */
  uint8_t vector[32][64];   /* 80 */
  double x87[8];            /* 2128 */
  uint16_t x87_control;     /* 2192 */
  uint16_t padding;
  uint32_t mxcsr;           /* 2196 */
  uint64_t mask[8];         /* 2200 */
} __attribute__((packed, aligned(8)));

enum width { SSE, AVX, AVX512 };

/*
 * hold_WIDTH_HOW(struct registers *in, struct registers *out, volatile int *flag): loads everything, waits until *flag is
 * not 0, stores everything. Nothing of C runs in between. HOW: spin stays in user space, sleep is in nanosleep(2) nearly
 * always (the kernel may change rax, rcx and r11 in a system call, so these hold nothing).
 */
#define LOAD_COMMON \
  "push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n" \
  "push %rdx\n push %rsi\n" /* flag at 8(%rsp), out at (%rsp) */ \
  "sub $40, %rsp\n stmxcsr 32(%rsp)\n fnstcw 36(%rsp)\n" \
  "movq $0, (%rsp)\n movq $50000000, 8(%rsp)\n" \
  "mov %rdx, %rbp\n" \
  "fninit\n fldcw 2192(%rdi)\n ldmxcsr 2196(%rdi)\n" \
  "fldl 2128(%rdi)\n fldl 2136(%rdi)\n fldl 2144(%rdi)\n fldl 2152(%rdi)\n" \
  "fldl 2160(%rdi)\n fldl 2168(%rdi)\n fldl 2176(%rdi)\n fldl 2184(%rdi)\n"
#define LOAD_GENERAL \
  "mov 0(%rdi), %rbx\n mov 8(%rdi), %rdx\n mov 16(%rdi), %rsi\n mov 24(%rdi), %r8\n mov 32(%rdi), %r9\n" \
  "mov 40(%rdi), %r10\n mov 48(%rdi), %r12\n mov 56(%rdi), %r13\n mov 64(%rdi), %r14\n mov 72(%rdi), %r15\n"
#define SPIN "1: pause\n cmpl $0, (%rbp)\n je 1b\n"
/* nanosleep(rdi = 50 ms, rsi = NULL): rsi is saved in memory around the call, everything else stays live in it. */
#define SLEEP \
  "1: cmpl $0, (%rbp)\n jne 2f\n mov %rsi, 16(%rsp)\n mov %rsp, %rdi\n xor %esi, %esi\n mov $35, %eax\n syscall\n" \
  "mov 16(%rsp), %rsi\n jmp 1b\n 2:\n"
#define STORE_COMMON \
  "mov 40(%rsp), %rdi\n" \
  "mov %rbx, 0(%rdi)\n mov %rdx, 8(%rdi)\n mov %rsi, 16(%rdi)\n mov %r8, 24(%rdi)\n mov %r9, 32(%rdi)\n" \
  "mov %r10, 40(%rdi)\n mov %r12, 48(%rdi)\n mov %r13, 56(%rdi)\n mov %r14, 64(%rdi)\n mov %r15, 72(%rdi)\n" \
  "fnstcw 2192(%rdi)\n stmxcsr 2196(%rdi)\n" \
  "fstpl 2184(%rdi)\n fstpl 2176(%rdi)\n fstpl 2168(%rdi)\n fstpl 2160(%rdi)\n" \
  "fstpl 2152(%rdi)\n fstpl 2144(%rdi)\n fstpl 2136(%rdi)\n fstpl 2128(%rdi)\n"
#define LEAVE \
  "ldmxcsr 32(%rsp)\n fldcw 36(%rsp)\n add $56, %rsp\n" \
  "pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n ret\n"

/* One move for each register, made by the assembler's own repetition. */
#define EACH16(line) ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n" line "\n.endr\n"
#define EACH32(line) \
  ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n" line "\n.endr\n"
#define EACH_MASK(line) ".irp n,1,2,3,4,5,6,7\n" line "\n.endr\n"
#define SSE_LOAD EACH16("movups 80+64*\\n(%rdi), %xmm\\n")
#define SSE_STORE EACH16("movups %xmm\\n, 80+64*\\n(%rdi)")
#define AVX_LOAD EACH16("vmovups 80+64*\\n(%rdi), %ymm\\n")
#define AVX_STORE EACH16("vmovups %ymm\\n, 80+64*\\n(%rdi)") "vzeroupper\n"
#define AVX512_LOAD EACH32("vmovups 80+64*\\n(%rdi), %zmm\\n") EACH_MASK("kmovq 2200+8*\\n(%rdi), %k\\n")
#define AVX512_STORE EACH32("vmovups %zmm\\n, 80+64*\\n(%rdi)") EACH_MASK("kmovq %k\\n, 2200+8*\\n(%rdi)") "vzeroupper\n"

#define HOLD(name, load, wait, store) \
  void name(const struct registers *in, struct registers *out, volatile int *flag); \
  asm(".text\n.globl " #name "\n.type " #name ", @function\n" #name ":\n" LOAD_COMMON load LOAD_GENERAL wait STORE_COMMON store LEAVE)

HOLD(hold_sse_spin, SSE_LOAD, SPIN, SSE_STORE);
HOLD(hold_sse_sleep, SSE_LOAD, SLEEP, SSE_STORE);
HOLD(hold_avx_spin, AVX_LOAD, SPIN, AVX_STORE);
HOLD(hold_avx_sleep, AVX_LOAD, SLEEP, AVX_STORE);
HOLD(hold_avx512_spin, AVX512_LOAD, SPIN, AVX512_STORE);
HOLD(hold_avx512_sleep, AVX512_LOAD, SLEEP, AVX512_STORE);

static struct registers in[THREADS], out[THREADS];
static volatile int flag;
static int started;
static enum width width;

static void *run(void *argument) {
  static void (*const hold[3][2])(const struct registers *, struct registers *, volatile int *) = {
      {hold_sse_spin, hold_sse_sleep}, {hold_avx_spin, hold_avx_sleep}, {hold_avx512_spin, hold_avx512_sleep}};
  long index = (long)argument;
  __atomic_add_fetch(&started, 1, __ATOMIC_SEQ_CST);
  /* Four threads spin; more, or sleeps shorter than 50 ms, starve everything else on some kernels (docs/findings.md). */
  hold[width][index % 16 != 0](&in[index], &out[index], &flag);
  return NULL;
}

int main(void) {
  pthread_t threads[THREADS];
  _Static_assert(__builtin_offsetof(struct registers, mask) == 2200, "offsets of the assembly");
  width = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") ? AVX512
          : __builtin_cpu_supports("avx")                                          ? AVX
                                                                                   : SSE;
  size_t vector_bytes = width == AVX512 ? 64 : width == AVX ? 32 : 16;
  int vectors = width == AVX512 ? 32 : 16;
  for (long i = 0; i < THREADS; i++) {
    probe_fill(&in[i], sizeof in[i] / 8 * 8, 1000 + i);
    for (int r = 0; r < 8; r++) in[i].x87[r] = (i + 1) * 1000.5 + r;
    in[i].x87_control = 0x037f | (i % 4) << 10; /* rounding mode; exceptions masked */
    in[i].mxcsr = 0x1f80 | (i % 4) << 13;
    MUST(-(pthread_create(&threads[i], NULL, run, (void *)i) != 0));
  }
  while (__atomic_load_n(&started, __ATOMIC_SEQ_CST) < THREADS) probe_pause(1);
  probe_pause(20);
  probe_wait();
  flag = 1;
  for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
  if (probe_broken()) out[17].vector[3][7] ^= 1;
  for (int i = 0; i < THREADS; i++) {
    CHECK(!memcmp(in[i].general, out[i].general, sizeof in[i].general), "thread %d: a general register differs", i);
    for (int r = 0; r < vectors; r++) {
      CHECK(!memcmp(in[i].vector[r], out[i].vector[r], vector_bytes), "thread %d: vector register %d differs", i, r);
    }
    if (width == AVX512) {
      CHECK(!memcmp(&in[i].mask[1], &out[i].mask[1], 56), "thread %d: a mask register differs", i);
    }
    CHECK(!memcmp(in[i].x87, out[i].x87, sizeof in[i].x87), "thread %d: the x87 stack differs", i);
    CHECK(in[i].x87_control == out[i].x87_control, "thread %d: x87 control word %x instead of %x", i, out[i].x87_control,
          in[i].x87_control);
    CHECK(in[i].mxcsr == (out[i].mxcsr & ~0x3f), "thread %d: mxcsr %x instead of %x", i, out[i].mxcsr, in[i].mxcsr);
  }
  return probe_result();
}
#endif
