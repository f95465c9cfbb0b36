#!/bin/bash
# Starts Logstash with its user's password in the environment, from which its pipeline takes it.
set -eu

LOGSTASH_PASSWORD=$(</run/secrets/logstash_password)
# JRuby loads libraries from files that it writes into the folder for temporary ones, and in Docker's tmpfs
# nothing may be executed (https://github.com/jruby/jruby/issues/2186): so a folder of the volume, emptied.
temporary=/usr/share/logstash/data/tmp
rm -rf "$temporary"
mkdir "$temporary"
LS_JAVA_OPTS="-Djava.io.tmpdir=$temporary $LS_JAVA_OPTS"
export LOGSTASH_PASSWORD LS_JAVA_OPTS
exec /usr/local/bin/docker-entrypoint
