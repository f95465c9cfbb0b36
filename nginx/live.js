// What changes without a reload, which loses requests over HTTP/2 (docs/edge.md), and what nginx has no word for.
import fs from 'fs';

// During `make release`: one of the containers that upstream.sh has listed.
function upstream() {
    try {
        const addresses = fs.readFileSync('/tmp/upstream', 'utf8').trim().split('\n');
        return addresses[Math.floor(Math.random() * addresses.length)];
    } catch (error) { // there is no list
        return '';
    }
}

// The folder with the pair that is served now (entrypoint/16-certificate.sh).
const certificate = () => fs.realpathSync('/tmp/certificate');

// Whether to keep no more of what this client requests (templates/cache.conf.template), which is called for what could
// be kept alone: 16 MB in ten seconds.
function keptEnough(r) {
    const values = r.variables;
    const key = `${values.remote_addr} ${Math.floor(Date.now() / 10000)}`;
    const size = Number(values.upstream_http_content_length);
    const kept = ngx.shared.kept.incr(key, size, 0);
    return kept > 16 * 1024 * 1024 ? '1' : '';
}

// Whether there is a line in the access log (templates/log.conf.template): of what nginx answers by itself, so many a
// client in ten seconds, and one in the error log that says so.
function ownLine(r) {
    const values = r.variables;
    const allowed = Number(values.own_lines);
    const key = `${values.remote_addr} ${Math.floor(Date.now() / 10000)}`;
    const lines = ngx.shared.lines.incr(key, 1, 0);
    if (lines > allowed) {
        ngx.shared.metrics.incr('unlogged_total', 1, 0);
    }
    if (lines === allowed + 1) {
        r.error(`more than ${allowed} requests in ten seconds from ${values.remote_addr}: the rest is counted, not logged`);
    }
    return lines <= allowed ? '1' : '';
}

// An error in place of a response whose headers are there already: only the file's size stays.
function unsatisfiable(r) {
    for (const name in r.headersOut) {
        if (name.toLowerCase() != 'content-range') {
            delete r.headersOut[name];
        }
    }
    r.headersOut['Content-Type'] = 'text/plain';
    r.return(416, 'The file has no such part.\n');
}

export default { upstream, certificate, keptEnough, ownLine, unsatisfiable };
