// What changes without a reload, which loses requests over HTTP/2 (docs/edge.md).
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

export default { upstream, certificate };
