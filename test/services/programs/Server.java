// A Java HTTP server with state: a map that grows by requests, a scheduled task, garbage to collect all the time.
import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;

public class Server {
  public static void main(String[] arguments) throws Exception {
    Map<String, Long> entries = new ConcurrentHashMap<>();
    AtomicLong ticks = new AtomicLong();
    byte[][] garbage = new byte[256][];
    var scheduler = Executors.newScheduledThreadPool(2);
    scheduler.scheduleAtFixedRate(() -> garbage[(int) (ticks.incrementAndGet() % 256)] = new byte[200_000], 5, 5, TimeUnit.MILLISECONDS);
    HttpServer server = HttpServer.create(new InetSocketAddress(8080), 0);
    server.setExecutor(Executors.newFixedThreadPool(4));
    server.createContext("/put", exchange -> {
      String key = exchange.getRequestURI().getQuery();
      entries.put(key, (long) key.hashCode() * 31);
      exchange.sendResponseHeaders(200, -1);
      exchange.close();
    });
    server.createContext("/state", exchange -> {
      long wrong = entries.entrySet().stream().filter(e -> e.getValue() != (long) e.getKey().hashCode() * 31).count();
      byte[] body = ("{\"entries\":" + entries.size() + ",\"wrong\":" + wrong + ",\"ticks\":" + ticks.get() + "}").getBytes();
      exchange.sendResponseHeaders(200, body.length);
      exchange.getResponseBody().write(body);
      exchange.close();
    });
    server.start();
    System.out.println("ready");
  }
}
