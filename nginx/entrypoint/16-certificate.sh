#!/bin/sh
# Has nginx serve the pair that 15-self-signed-certificate.sh has checked, from the next handshake on and without
# a reload: copies it to a folder of its own, to which a link leads (live.js). So a key never meets another
# certificate.
set -eu
umask 077

link=/tmp/certificate
old=$(readlink "$link" || true)
new=$(mktemp -d "$link.XXXXXX")
cp /etc/nginx/certificates/fullchain.pem /etc/nginx/certificates/privkey.pem "$new"
# nginx reads it when the next client comes. This reads all certificates of the chain, as nginx does.
openssl crl2pkcs7 -nocrl -certfile "$new/fullchain.pem" -out /dev/null 2>/dev/null || {
  rm -rf "$new"
  echo 'error: fullchain.pem has a broken certificate -> copy it again, intermediate certificates too' >&2
  exit 1
}
ln -sfn "$new" "$link.new"
mv -T "$link.new" "$link"
# A handshake may just be about to read it.
[ -z "$old" ] || (sleep 1 && rm -rf "$old")
