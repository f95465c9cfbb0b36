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

export default { upstream, certificate, unsatisfiable };
