// Starts `sluice serve` for the clients' tests: own state directory, port 0, three tenants' keys, the
// first admin key.
import {spawn} from 'node:child_process';
import {createHash} from 'node:crypto';
import {mkdtempSync, rmSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {dirname, join, resolve} from 'node:path';
import {createInterface} from 'node:readline';
import {fileURLToPath} from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const bin = process.env.SLUICE_BIN ?? resolve(here, '../../build/release/bin');
const START_TIMEOUT_MS = 60_000;

export const KEYS = {
  open: 'sk-test-open', limited: 'sk-test-limited', restricted: 'sk-test-restricted'};

function tenant(name, key, extra) {
  const digest = createHash('sha256').update(key).digest('hex');
  return `  - name: ${name}\n    keys:\n      - name: ${name}\n        sha256: "${digest}"\n${extra}`;
}

function configText(stateDir) {
  return `state_dir: "${stateDir}"
listen:
  port: 0
models:
  - name: canned
    kind: canned
    canned_step_us: 1000
  - name: other
    kind: canned
breakers:
  tenants:
    open_min: 1s
    open_max: 1s
tenants:
${tenant('open', KEYS.open, '')}` +
      tenant('limited', KEYS.limited, '    limits:\n      concurrent_requests: 1\n') +
      tenant('restricted', KEYS.restricted, '    models: ["other"]\n');
}

// {baseURL, origin, admin(method, path, body), isRunning(), stop()}
export async function startSluice() {
  const home = mkdtempSync(join(tmpdir(), 'sluice-clients-'));
  const config = join(home, 'sluice.yaml');
  writeFileSync(config, configText(join(home, 'state')));
  const child = spawn(join(bin, 'sluice'), ['serve', '--config', config],
                      {stdio: ['ignore', 'pipe', 'pipe']});
  const log = [];
  child.stderr.on('data', data => log.push(data.toString()));
  const ended = new Promise(done => child.on('exit', done));
  const origin = await new Promise((done, fail) => {
    const timer = setTimeout(() => fail(new Error('not ready: ' + log.join(''))), START_TIMEOUT_MS);
    createInterface({input: child.stdout}).on('line', line => {
      const match = /^sluice ready: (http:\/\/\S+)/.exec(line);
      if (!match) return;
      clearTimeout(timer);
      done(match[1]);
    });
    ended.then(code => fail(new Error(`sluice ended with ${code}: ` + log.join(''))));
  });
  const adminKey = /first admin key, shown only now: (\S+)/.exec(log.join(''))[1];
  return {
    origin,
    baseURL: origin + '/v1',
    async admin(method, path, body = {}) {
      const response = await fetch(origin + '/admin/v1' + path, {
        method,
        headers: {authorization: 'Bearer ' + adminKey, 'content-type': 'application/json'},
        body: JSON.stringify(body),
      });
      if (!response.ok) throw new Error(`${method} ${path}: ${await response.text()}`);
      return response.json();
    },
    isRunning: () => child.exitCode === null && child.signalCode === null,
    async stop() {
      child.kill('SIGTERM');
      const code = await ended;
      rmSync(home, {recursive: true, force: true});
      return code;
    },
  };
}
