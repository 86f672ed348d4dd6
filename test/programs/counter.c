/* R01: an unmodified C program (built both static and dynamic) goes on where it was. */
#include "probe.h"

struct node {
  struct node *next;
  uint64_t value;
};

int main(void) {
  struct node *list = NULL;
  uint64_t state = 42, count = 0;
  FILE *file = tmpfile();
  if (!file) probe_die("tmpfile");
  probe_ready();
  while (!probe_gone()) {
    struct node *node = malloc(sizeof *node);
    node->next = list;
    node->value = probe_random(&state);
    list = node;
    count++;
    fprintf(file, "%lu\n", (unsigned long)node->value);
    probe_pause(1);
  }
  if (probe_broken()) list->value ^= 1;

  uint64_t *expected = malloc(count * sizeof *expected), again = 42;
  for (uint64_t i = 0; i < count; i++) expected[i] = probe_random(&again);
  uint64_t left = count;
  for (struct node *node = list; node; node = node->next) {
    left--;
    CHECK(node->value == expected[left], "element %lu of the list differs", (unsigned long)left);
  }
  CHECK(left == 0, "the list is %lu elements short", (unsigned long)left);
  rewind(file);
  unsigned long value;
  for (uint64_t i = 0; i < count; i++) {
    if (fscanf(file, "%lu", &value) != 1 || value != expected[i]) {
      probe_fail("line %lu of the buffered temporary file differs", (unsigned long)i);
      break;
    }
  }
  CHECK(fscanf(file, "%lu", &value) != 1, "the temporary file is longer than it should be");
  return probe_result();
}
