// R01: a Java program (collections, threads, lock, garbage collection) goes on where it was.
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;

public class Counter {
  static long next(long value) {
    return value * 6364136223846793005L + 1442695040888963407L;
  }

  public static void main(String[] arguments) throws Exception {
    Path go = Path.of(System.getenv().getOrDefault("PROBE_GO", "/probe/go"));
    Map<Integer, Long> seen = new HashMap<>();
    List<String> failures = new ArrayList<>();
    BlockingQueue<Long> questions = new LinkedBlockingQueue<>();
    BlockingQueue<Long> answers = new LinkedBlockingQueue<>();
    Thread thread = new Thread(() -> {
      try {
        for (;;) answers.put(questions.take() ^ 0x5555L);
      } catch (InterruptedException end) {
        // the end of the test
      }
    });
    thread.start();
    long value = 1;
    System.out.println("ready");
    System.out.flush();
    while (!Files.exists(go)) {
      value = next(value);
      seen.put(seen.size(), value);
      byte[] garbage = new byte[64 * 1024];
      garbage[seen.size() % garbage.length] = 1;
      questions.put(value);
      if (answers.take() != (value ^ 0x5555L)) failures.add("the thread answered wrong");
      Thread.sleep(1);
    }
    thread.interrupt();
    thread.join();
    if (System.getenv("PROBE_BREAK") != null) seen.put(0, 0L);
    long again = 1;
    for (int index = 0; index < seen.size(); index++) {
      again = next(again);
      if (seen.get(index) != again) failures.add("entry " + index + " differs");
    }
    if (again != value) failures.add("the last value differs");
    for (String failure : failures) System.out.println("FAIL: " + failure);
    if (failures.isEmpty()) System.out.println("PASS");
    System.exit(failures.isEmpty() ? 0 : 1);
  }
}
