/* R16, R18: a POSIX message queue: CRIU saves neither its descriptor nor its messages; Cairn must say so before freezing anything. */
#include <mqueue.h>
#include "probe.h"

int main(void) {
  struct mq_attr attributes = {.mq_maxmsg = 5, .mq_msgsize = 64};
  mqd_t queue = MUST(mq_open("/probe", O_RDWR | O_CREAT, 0600, &attributes));
  char text[64] = "";
  MUST(mq_send(queue, "hello", 6, 3));
  probe_wait();
  if (probe_broken()) MUST(mq_receive(queue, text, sizeof text, NULL));
  struct timespec now = {0, 0};
  CHECK(mq_timedreceive(queue, text, sizeof text, NULL, &now) == 6 && !strcmp(text, "hello"), "the message is lost");
  mq_unlink("/probe");
  return probe_result();
}
