# nginx with a download in progress; server (master and workers of another user) and client are in one unit.
set -e
mkdir -p /srv/files /var/tmp/nginx
head -c 50000000 /dev/urandom > /srv/files/data
expected=$(sha256sum < /srv/files/data)
cat > /var/tmp/nginx/nginx.conf <<'CONF'
user www-data;
worker_processes 2;
pid /var/tmp/nginx/pid;
error_log /var/tmp/nginx/error.log;
events { worker_connections 256; }
http {
  access_log /var/tmp/nginx/access.log;
  server {
    listen 80;
    root /srv/files;
    sendfile on;
    location / { limit_rate 6m; }
    location = /health { return 200 "well\n"; }
  }
}
CONF
chmod 755 /srv/files /var/tmp/nginx
nginx -c /var/tmp/nginx/nginx.conf -g 'daemon on;' 
curl -sf http://127.0.0.1/health > /dev/null
echo ready
curl -sS --fail -o /var/tmp/got http://127.0.0.1/data || { echo "FAIL: curl ended with $?"; exit 1; }
echo downloaded
[ "$(sha256sum < /var/tmp/got)" = "$expected" ] || { echo 'FAIL: the download differs'; exit 1; }
# It still serves: new connections, reload, an orderly end.
curl -sSf -H 'Range: bytes=100-199' http://127.0.0.1/data | cmp - <(tail -c +101 /srv/files/data | head -c 100) || { echo 'FAIL: a new download'; exit 1; }
nginx -c /var/tmp/nginx/nginx.conf -s reload 
curl -sSf http://127.0.0.1/health > /dev/null || { echo 'FAIL: after a reload'; exit 1; }
echo PASS
if [ -n "$STAY" ]; then exec sleep "$STAY"; fi
