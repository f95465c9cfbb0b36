#!/bin/sh
# Makes a self-signed certificate where there is none, and checks the one that is there.
#
# A pair that was made here is replaced when it has expired or is for other names. One that somebody
# supplied is never touched: the issuer's name tells the two apart. Nor is a link, whatever it leads to.
# Environment: SERVER_NAME, as 05-settings.envsh leaves it.
set -eu

folder=/etc/nginx/certificates
certificate=$folder/fullchain.pem
key=$folder/privkey.pem
maker='Flask in production, self-signed'
# Browsers refuse more than 398 days.
days=365

# die WHAT FIX: one line that says what is wrong and what to type.
die() {
  printf 'error: %s -> %s\n' "$1" "$2" >&2
  exit 1
}

# The names as a subjectAltName extension.
alternative_names() {
  list=
  for name in $SERVER_NAME; do
    case "$name" in
      .*) list="$list,DNS:${name#.},DNS:*$name" ;;
      localhost) list="$list,DNS:localhost,IP:127.0.0.1,IP:::1" ;;
      *[!0-9.]*) list="$list,DNS:$name" ;;
      *) list="$list,IP:$name" ;;
    esac
  done
  printf '%s' "${list#,}"
}

# The names are also written into the certificate as a comment, which is easier to compare than what
# openssl prints of the extension.
made_here() { openssl x509 -in "$certificate" -noout -issuer | grep -Fq "$maker"; }
names_differ() { ! openssl x509 -in "$certificate" -noout -ext nsComment 2>/dev/null | grep -Fqx "    $SERVER_NAME"; }
expired() { ! openssl x509 -in "$certificate" -noout -checkend 0 >/dev/null; }

make_pair() {
  [ -w "$folder" ] || die "$folder cannot be written by user $(id -u), and holds no certificate" \
    'put fullchain.pem and privkey.pem there, or leave CERTIFICATES empty for a self-signed pair'
  umask 077
  new=$(mktemp -d "$folder/.new.XXXXXX")
  trap 'rm -rf "$new"' EXIT
  # P-256: what Mozilla's guideline names first, and quick to sign with.
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -days "$days" -sha256 \
    -subj "/O=$maker" -addext "subjectAltName=$(alternative_names)" -addext "nsComment=$SERVER_NAME" \
    -addext 'basicConstraints=critical,CA:FALSE' -addext 'extendedKeyUsage=serverAuth' \
    -keyout "$new/privkey.pem" -out "$new/fullchain.pem" 2>"$new/messages" ||
    die "openssl could not make a certificate: $(tail -n 1 "$new/messages")" "check SERVER_NAME=$SERVER_NAME"
  chmod 0644 "$new/fullchain.pem"
  # Renames within one file system: nobody ever reads half a file.
  mv -f "$new/privkey.pem" "$key"
  mv -f "$new/fullchain.pem" "$certificate"
  printf 'made a self-signed certificate for %s, valid for %s days: %s\n' "$SERVER_NAME" "$days" "$certificate" >&2
}

# The container sees only the folder that CERTIFICATES names: certbot's links lead out of it.
check_link() {
  if [ -L "$1" ] && [ ! -e "$1" ]; then
    die "$1 is a link to $(readlink "$1"), which is not inside the folder that CERTIFICATES names" \
      'copy both files into a folder of their own; certbot: docs/certificates.md'
  fi
}

check_pair() {
  check_link "$certificate"
  check_link "$key"
  [ -e "$key" ] || die "$certificate is there, but $key is not" \
    'put the key that belongs to it there, or remove the certificate to have a self-signed pair made'
  [ -e "$certificate" ] || die "$key is there, but $certificate is not" \
    'put the certificate that belongs to it there, or remove the key to have a self-signed pair made'
  [ -r "$certificate" ] || die "$certificate cannot be read by user $(id -u)" \
    'on the host: chmod 0644 fullchain.pem'
  [ -r "$key" ] || die "$key cannot be read by user $(id -u)" \
    "on the host: chown $(id -u) privkey.pem"
  # An encrypted key would make nginx ask for a passphrase that nobody types.
  of_key=$(openssl pkey -in "$key" -passin pass: -pubout 2>/dev/null) ||
    die "$key is not a private key without passphrase" \
      'make one: openssl pkey -in ENCRYPTED -out privkey.pem'
  of_certificate=$(openssl x509 -in "$certificate" -noout -pubkey 2>/dev/null) ||
    die "$certificate is not a certificate in PEM form" \
      'make one: openssl x509 -in CERTIFICATE -out fullchain.pem'
  [ "$of_key" = "$of_certificate" ] || die "$key does not belong to $certificate" \
    "compare: openssl pkey -in privkey.pem -pubout; openssl x509 -in fullchain.pem -noout -pubkey"
}

if [ ! -x "$folder" ]; then
  die "$folder cannot be entered by user $(id -u)" \
    "on the host, if the folder is your own: chown $(id -u) FOLDER; if it is certbot's: docs/certificates.md"
elif [ ! -e "$certificate" ] && [ ! -L "$certificate" ] && [ ! -e "$key" ] && [ ! -L "$key" ]; then
  make_pair
else
  check_pair
  if [ ! -L "$certificate" ] && [ ! -L "$key" ] && made_here && { expired || names_differ; }; then
    make_pair
  fi
fi
