// The npm `openai` client, unchanged, against a running Sluice: every route that it knows and Sluice
// serves, errors as the client's own classes, abort and automatic retry.
import assert from 'node:assert/strict';
import {after, before, test} from 'node:test';

import OpenAI from 'openai';

import {KEYS, startSluice} from './sluice_server.mjs';

const messages = [{role: 'system', content: 'Be brief.'}, {role: 'user', content: 'Why is water wet?'}];
const chat = {model: 'canned', messages, max_tokens: 16, seed: 5, ignore_eos: true};
const completion = {model: 'canned', prompt: 'Once there was', max_tokens: 16, seed: 5, ignore_eos: true};

let server, client;
const clientFor = (apiKey, options = {}) =>
    new OpenAI({apiKey, baseURL: server.baseURL, maxRetries: 0, ...options});

before(async () => {
  server = await startSluice();
  client = clientFor(KEYS.open);
});
after(async () => {
  assert.ok(server.isRunning());
  assert.equal(await server.stop(), 0);
});

async function textOf(stream) {
  const result = {texts: {}, finish: {}, usage: null, chunks: 0};
  for await (const chunk of stream) {
    ++result.chunks;
    if (chunk.usage) result.usage = chunk.usage;
    for (const choice of chunk.choices) {
      const text = choice.text ?? choice.delta?.content ?? '';
      result.texts[choice.index] = (result.texts[choice.index] ?? '') + text;
      if (choice.finish_reason) result.finish[choice.index] = choice.finish_reason;
    }
  }
  return result;
}

test('lists and retrieves models', async () => {
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);
  assert.deepEqual(ids, ['canned', 'other']);
  const model = await client.models.retrieve('canned');
  assert.equal(model.object, 'model');
  assert.ok(model.max_model_len > 0);
  await assert.rejects(client.models.retrieve('none'), error => {
    assert.ok(error instanceof OpenAI.NotFoundError);
    assert.equal(error.code, 'model_not_found');
    return true;
  });
});

test('a chat answer, whole and streamed', async () => {
  const whole = await client.chat.completions.create(chat);
  assert.equal(whole.object, 'chat.completion');
  assert.equal(whole.choices[0].message.role, 'assistant');
  assert.equal(whole.choices[0].finish_reason, 'length');
  assert.equal(whole.usage.completion_tokens, 16);
  assert.equal(whole.usage.total_tokens, whole.usage.prompt_tokens + 16);
  assert.ok(whole.system_fingerprint);
  assert.ok(whole._request_id);
  const streamed = await textOf(await client.chat.completions.create(
      {...chat, stream: true, stream_options: {include_usage: true}}));
  assert.equal(streamed.texts[0], whole.choices[0].message.content);
  assert.deepEqual(streamed.finish, {0: 'length'});
  // The second time the prompt is in the prefix cache: only that detail may differ.
  assert.equal(streamed.usage.prompt_tokens, whole.usage.prompt_tokens);
  assert.equal(streamed.usage.completion_tokens, 16);
});

test('the streaming helper assembles the same message', async () => {
  const whole = await client.chat.completions.create(chat);
  const helper = client.chat.completions.stream({...chat, stream_options: {include_usage: true}});
  let content = '';
  helper.on('content', delta => content += delta);
  const final = await helper.finalChatCompletion();
  assert.equal(content, whole.choices[0].message.content);
  assert.equal(final.choices[0].message.content, content);
  assert.equal((await helper.totalUsage()).completion_tokens, 16);
});

test('a completion, whole and streamed, with n', async () => {
  const whole = await client.completions.create({...completion, n: 3, temperature: 1});
  assert.equal(whole.object, 'text_completion');
  assert.equal(whole.choices.length, 3);
  assert.equal(whole.usage.completion_tokens, 48);
  assert.equal(new Set(whole.choices.map(c => c.text)).size, 3);
  const streamed = await textOf(await client.completions.create(
      {...completion, n: 3, temperature: 1, stream: true}));
  for (const choice of whole.choices) assert.equal(streamed.texts[choice.index], choice.text);
  assert.equal(streamed.usage, null);
});

test('prompts as strings, token ids and lists of both', async () => {
  const tokenized = await client.post('/tokenize', {body: {model: 'canned', prompt: completion.prompt}});
  const byText = await client.completions.create(completion);
  const byIds = await client.completions.create({...completion, prompt: tokenized.tokens});
  assert.equal(byIds.choices[0].text, byText.choices[0].text);
  assert.equal(byIds.usage.prompt_tokens, tokenized.count);
  const several = await client.completions.create({...completion, prompt: ['one', 'two']});
  assert.deepEqual(several.choices.map(c => c.index), [0, 1]);
});

test('a seed repeats, another differs', async () => {
  const texts = [];
  for (const seed of [1, 1, 2])
    texts.push((await client.completions.create({...completion, seed, temperature: 1})).choices[0].text);
  assert.equal(texts[0], texts[1]);
  assert.notEqual(texts[0], texts[2]);
});

test('a stop string ends before it', async () => {
  const text = (await client.completions.create(completion)).choices[0].text;
  const stop = text.slice(4, 8);
  const choice = (await client.completions.create({...completion, stop})).choices[0];
  assert.equal(choice.text, text.slice(0, text.indexOf(stop)));
  assert.equal(choice.finish_reason, 'stop');
});

test('logprobs of a chat, whole, streamed and through the helper', async () => {
  const body = {...chat, logprobs: true, top_logprobs: 2};
  const whole = await client.chat.completions.create(body);
  const content = whole.choices[0].logprobs.content;
  assert.equal(content.length, 16);
  const bytes = Buffer.from(content.flatMap(entry => entry.bytes ?? []));
  assert.equal(bytes.toString('utf8'), whole.choices[0].message.content);
  for (const entry of content) {
    assert.ok(entry.logprob <= 0);
    assert.equal(entry.top_logprobs.length, 2);
    assert.ok(entry.top_logprobs[0].logprob >= entry.top_logprobs[1].logprob);
  }
  const helper = client.chat.completions.stream(body);
  let heard = 0;
  helper.on('logprobs.content.delta', event => heard += event.content.length);
  const final = await helper.finalChatCompletion();
  assert.deepEqual(final.choices[0].logprobs.content, content);
  assert.equal(heard, 16);
});

test('an echo with the log-probabilities of the prompt, and best_of', async () => {
  const scored = await client.completions.create({...completion, max_tokens: 0, echo: true, logprobs: 3});
  const {text, logprobs, finish_reason} = scored.choices[0];
  assert.equal(text, completion.prompt);
  assert.equal(finish_reason, 'length');
  assert.equal(scored.usage.completion_tokens, 0);
  assert.equal(logprobs.tokens.length, scored.usage.prompt_tokens);
  assert.equal(logprobs.token_logprobs[0], null);
  assert.ok(logprobs.token_logprobs.slice(1).every(value => value <= 0));
  assert.ok(logprobs.top_logprobs.slice(1).every(top => Object.keys(top).length >= 3));
  assert.equal(logprobs.text_offset.length, logprobs.tokens.length);
  const best = await client.completions.create({...completion, temperature: 1, best_of: 3});
  assert.equal(best.choices.length, 1);
  assert.equal(best.usage.completion_tokens, 48);
});

test('embeddings as the client asks for them, and as floats', async () => {
  const input = ['Once there was', 'Why is water wet?'];
  const packed = await client.embeddings.create({model: 'canned', input});
  const plain = await client.embeddings.create({model: 'canned', input, encoding_format: 'float'});
  assert.equal(packed.data.length, 2);
  for (const [i, {embedding, index}] of packed.data.entries()) {
    assert.equal(index, i);
    assert.deepEqual(Array.from(embedding), Array.from(Float32Array.from(plain.data[i].embedding)));
    const squares = embedding.reduce((sum, value) => sum + value * value, 0);
    assert.ok(Math.abs(squares - 1) < 1e-5);
  }
  assert.notDeepEqual(packed.data[0].embedding, packed.data[1].embedding);
  assert.ok(packed.usage.prompt_tokens > 2);
  await assert.rejects(client.embeddings.create({model: 'canned', input, dimensions: 5}), error => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.equal(error.param, 'dimensions');
    return true;
  });
});

test('counts the input tokens that the same body is billed', async () => {
  const counted = await client.post('/chat/completions/input_tokens', {body: {model: 'canned', messages}});
  assert.equal(counted.object, 'response.input_tokens');
  const answer = await client.chat.completions.create(chat);
  assert.equal(counted.input_tokens, answer.usage.prompt_tokens);
});

test('errors arrive as the client\'s own classes with code and param', async () => {
  const rows = [
    [clientFor('sk-wrong'), chat, OpenAI.AuthenticationError, 401, 'invalid_api_key', undefined],
    [clientFor(KEYS.restricted), chat, OpenAI.PermissionDeniedError, 403, 'model_not_allowed', undefined],
    [client, {...chat, model: 'none'}, OpenAI.NotFoundError, 404, 'model_not_found', 'model'],
    [client, {...chat, temperature: 3}, OpenAI.BadRequestError, 400, 'invalid_value', 'temperature'],
    [client, {...chat, max_tokens: 'x'}, OpenAI.BadRequestError, 400, 'invalid_value', 'max_tokens'],
    [client, {...chat, messages: []}, OpenAI.BadRequestError, 400, 'invalid_value', 'messages'],
    [client, {...chat, response_format: {type: 'json_object'}}, OpenAI.BadRequestError, 400,
     'unsupported_parameter', undefined],
    [client, {...chat, messages: [{role: 'user', content: 'river '.repeat(5000)}]},
     OpenAI.BadRequestError, 400, 'context_length_exceeded', undefined],
  ];
  for (const [who, body, kind, status, code, param] of rows)
    for (const stream of [false, true])
      await assert.rejects(who.chat.completions.create({...body, stream}), error => {
        assert.ok(error instanceof kind, `${code}: ${error}`);
        assert.equal(error.status, status);
        assert.equal(error.code, code);
        if (param) assert.ok(error.param.startsWith(param), `${error.param} for ${param}`);
        assert.ok(error.requestID);
        return true;
      });
});

test('an abort in the middle of a stream frees the request', async () => {
  const stream = await client.completions.create({...completion, max_tokens: 3000, stream: true});
  let chunks = 0;
  for await (const chunk of stream) {
    assert.equal(chunk.object, 'text_completion');
    if (++chunks === 5) stream.controller.abort();
  }
  assert.ok(chunks >= 5 && chunks < 3000);
  const running = async () => {
    const page = await (await fetch(server.origin + '/metrics')).text();
    return Number(/^sluice_journal_live_slots (\d+)$/m.exec(page)[1]);
  };
  const deadline = Date.now() + 10_000;
  while (await running() > 0) assert.ok(Date.now() < deadline, 'the sequence goes on');
});

test('a limit is an error with a delay that the client waits for by itself', async () => {
  // One request at a time: a stream holds the place, a second request finds it taken.
  const holder = clientFor(KEYS.limited);
  const strict = clientFor(KEYS.limited);
  const body = {...completion, max_tokens: 1};
  const stream = await holder.completions.create({...completion, max_tokens: 500, stream: true});
  const chunks = stream[Symbol.asyncIterator]();
  assert.ok(!(await chunks.next()).done);
  await assert.rejects(strict.completions.create(body), error => {
    assert.ok(error instanceof OpenAI.RateLimitError);
    assert.equal(error.code, 'concurrency_limit');
    assert.ok(Number(error.headers.get('retry-after-ms')) > 0);
    assert.ok(Number(error.headers.get('retry-after')) >= 1);
    return true;
  });
  const statuses = [];
  const patient = clientFor(KEYS.limited, {
    maxRetries: 100,
    fetch: async (...args) => {
      const response = await fetch(...args);
      statuses.push(response.status);
      return response;
    },
  });
  const answering = patient.completions.create(body);
  while (!(await chunks.next()).done);
  assert.equal((await answering).usage.completion_tokens, 1);
  assert.equal(statuses.at(-1), 200);
  assert.equal(statuses[0], 429);
});

// A client that retries by itself and keeps what it was answered.
function patientClient(apiKey) {
  const answers = [];
  const patient = clientFor(apiKey, {
    maxRetries: 5,
    fetch: async (...args) => {
      const response = await fetch(...args);
      const body = response.ok ? {} : await response.clone().json();
      answers.push({status: response.status, code: body.error?.code, type: body.error?.type,
                    delay: Number(response.headers.get('retry-after-ms'))});
      return response;
    },
  });
  return {patient, answers};
}

test('the delay of an exhausted minute is long enough for one retry', async () => {
  await server.admin('POST', '/tenants', {id: 'metered'});
  const {key} = await server.admin('POST', '/tenants/metered/keys', {name: 'app'});
  const {patient, answers} = patientClient(key);
  const body = {...completion, max_tokens: 1};
  await patient.completions.create(body);
  const until = Math.floor(Date.now() / 1000) + 3;
  await server.admin('PATCH', '/tenants/metered/quota',
                     {temporary_overrides: [{tokens_per_minute: 1, until}]});
  const answer = await patient.completions.create(body);
  assert.equal(answer.usage.completion_tokens, 1);
  assert.deepEqual(answers.map(({status}) => status), [200, 429, 200]);
  assert.equal(answers[1].code, 'rate_limit_exceeded');
  assert.equal(answers[1].type, 'tokens');
  assert.ok(answers[1].delay > 0 && answers[1].delay <= 3000);
});

test('an open circuit is retried until the operator closes it', async () => {
  await server.admin('POST', '/breakers/tenant:open/open');
  const {patient, answers} = patientClient(KEYS.open);
  const answering = patient.completions.create({...completion, max_tokens: 1});
  while (answers.length === 0) await new Promise(done => setTimeout(done, 5));
  await server.admin('POST', '/breakers/tenant:open/reset');
  assert.equal((await answering).usage.completion_tokens, 1);
  assert.deepEqual(answers.map(({status}) => status), [429, 200]);
  assert.equal(answers[0].code, 'tenant_circuit_open');
  assert.ok(answers[0].delay > 0 && answers[0].delay <= 1000);
});

test('eight requests at once on one client', async () => {
  const alone = await client.completions.create({...completion, temperature: 1});
  const answers = await Promise.all(Array.from({length: 8}, () =>
      client.completions.create({...completion, temperature: 1})));
  for (const answer of answers) assert.equal(answer.choices[0].text, alone.choices[0].text);
});
