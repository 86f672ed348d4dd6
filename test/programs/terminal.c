/* R15: a pseudo-terminal whose two ends are inside: settings, window size, data in both directions, session, job control. */
#include <pty.h>
#include <sys/ioctl.h>
#include <termios.h>
#include "probe.h"

static ssize_t read_line(int fd, char *text, size_t size, int milliseconds) {
  size_t length = 0;
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  for (int waited = 0; waited < milliseconds && length < size - 1; waited += 5) {
    ssize_t n = read(fd, text + length, size - 1 - length);
    if (n > 0) length += n;
    if (length && text[length - 1] == '\n') break;
    if (n <= 0) probe_pause(5);
  }
  text[length] = 0;
  return length;
}

static volatile sig_atomic_t winch, interrupted, foreground;
static void handler(int signal) {
  if (signal == SIGWINCH) winch = 1;
  if (signal == SIGINT) interrupted = 1;
  if (signal == SIGCONT) foreground = 1;
}

/* A shell's part: session leader with the slave as controlling terminal and a background job in its own process group. */
static void session(int slave, int result_fd) {
  struct sigaction action = {.sa_handler = handler};
  sigaction(SIGWINCH, &action, NULL);
  sigaction(SIGINT, &action, NULL);
  signal(SIGTTOU, SIG_IGN);
  MUST(setsid());
  MUST(ioctl(slave, TIOCSCTTY, 0));
  pid_t job = MUST(fork());
  if (job == 0) {
    MUST(setpgid(0, 0));
    signal(SIGTTOU, SIG_DFL);
    signal(SIGINT, SIG_IGN);
    sigaction(SIGCONT, &action, NULL);
    char line[16];
    raise(SIGTSTP); /* as control-Z does */
    while (read(slave, line, sizeof line) != 4 || memcmp(line, "job\n", 4)) {
    }
    _exit(foreground ? 5 : 6);
  }
  setpgid(job, job);
  int status;
  CHECK(waitpid(job, &status, WUNTRACED) == job && WIFSTOPPED(status) && WSTOPSIG(status) == SIGTSTP, "the job was not stopped");
  MUST(write(result_fd, "1", 1));
  probe_wait_quietly();

  pid_t sid = 0;
  CHECK(ioctl(slave, TIOCGSID, &sid) == 0 && sid == getpid(), "the controlling terminal belongs to session %d", sid);
  CHECK(tcgetpgrp(slave) == getpgrp(), "the foreground process group is %d", tcgetpgrp(slave));
  int tty = open("/dev/tty", O_RDWR);
  CHECK(tty >= 0, "/dev/tty: %s", strerror(errno));
  close(tty);
  /* The restart may report the stop once more. */
  CHECK(waitpid(job, &status, WNOHANG | WUNTRACED) == 0 || WIFSTOPPED(status), "the stopped job has changed: 0x%x", status);
  MUST(write(result_fd, "2", 1));
  for (int i = 0; i < 1000 && !(winch && interrupted); i++) probe_pause(5);
  CHECK(winch, "no SIGWINCH for a new window size");
  CHECK(interrupted, "no SIGINT for control-C");
  MUST(tcsetpgrp(slave, job));
  MUST(kill(-job, SIGCONT));
  MUST(write(result_fd, "3", 1));
  CHECK(waitpid(job, &status, 0) == job && WIFEXITED(status) && WEXITSTATUS(status) == 5, "the job ended with 0x%x", status);
  probe_child_end();
}

int main(void) {
  int master, slave, results[2];
  char text[256], byte, name[64];
  struct winsize size = {.ws_row = 37, .ws_col = 111}, size_now;
  MUST(openpty(&master, &slave, name, NULL, &size));
  MUST(pipe(results));
  pid_t child = MUST(fork());
  if (child == 0) {
    close(master);
    session(slave, results[1]);
  }
  MUST(read(results[0], &byte, 1));
  struct termios settings, settings_now;
  MUST(tcgetattr(slave, &settings));
  settings.c_lflag &= ~ECHO;
  settings.c_cc[VERASE] = 'x';
  settings.c_cc[VMIN] = 3;
  settings.c_iflag |= INLCR;
  MUST(tcsetattr(slave, TCSANOW, &settings));
  /* A second terminal in raw mode, with no session. */
  int raw_master, raw_slave;
  struct termios raw;
  MUST(openpty(&raw_master, &raw_slave, NULL, NULL, NULL));
  MUST(tcgetattr(raw_slave, &raw));
  cfmakeraw(&raw);
  MUST(tcsetattr(raw_slave, TCSANOW, &raw));
  MUST(tcgetattr(slave, &settings));

  probe_wait();

  MUST(read(results[0], &byte, 1));
  if (probe_broken()) size.ws_row++;
  MUST(ioctl(slave, TIOCGWINSZ, &size_now));
  CHECK(size_now.ws_row == size.ws_row && size_now.ws_col == size.ws_col, "window size %dx%d", size_now.ws_row, size_now.ws_col);
  MUST(tcgetattr(slave, &settings_now));
  CHECK(settings_now.c_lflag == settings.c_lflag && settings_now.c_iflag == settings.c_iflag && settings_now.c_oflag == settings.c_oflag &&
            !memcmp(settings_now.c_cc, settings.c_cc, NCCS), "terminal settings differ");
  CHECK(!strcmp(ttyname(slave) ?: "", name), "the terminal is now %s, not %s", ttyname(slave), name);
  MUST(write(slave, "to the master\n", 14));
  read_line(master, text, sizeof text, 3000);
  CHECK(!strcmp(text, "to the master\r\n"), "the master read '%s'", text);
  size.ws_col = 50;
  MUST(ioctl(master, TIOCSWINSZ, &size));
  MUST(write(master, "\003", 1));
  MUST(read(results[0], &byte, 1));
  MUST(write(master, "jobbx", 5));
  MUST(write(master, "\r", 1));
  probe_reap(child, "session");
  MUST(tcgetattr(raw_slave, &settings_now));
  CHECK(!(settings_now.c_lflag & (ICANON | ECHO | ISIG)) && !(settings_now.c_oflag & OPOST), "raw mode is lost");
  MUST(write(raw_master, "\003\n", 2));
  CHECK(read(raw_slave, text, 16) == 2 && text[0] == 3, "raw terminal: data to the slave");
  MUST(write(raw_slave, "\n", 1));
  CHECK(read(raw_master, text, 16) == 1 && text[0] == '\n', "raw terminal: data to the master");
  return probe_result();
}
