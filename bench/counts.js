// Runs before the module of a build: counts the crossings between JavaScript and Wasm, and calls of the platform. Each log line
// is followed by one with the totals so far.
const totals = {};
const add = (name) => {
  totals[name] = (totals[name] ?? 0) + 1;
};

const counted = (names, call) =>
  function (...args) {
    for (const name of names) add(name);
    return Reflect.apply(call, this, args);
  };

/** The functions of an object, each counted as `kind`, and as more where its name matches. */
function countedAll(object, kind, more) {
  const entries = Object.entries(object).map(([name, value]) => {
    const names = [kind, ...more.filter(([pattern]) => pattern.test(name)).map(([, other]) => other)];
    return [name, typeof value === 'function' ? counted(names, value) : value];
  });
  return Object.fromEntries(entries);
}

const { Instance } = WebAssembly;
WebAssembly.Instance = function (module, imports) {
  const wrapped = Object.fromEntries(Object.entries(imports).map(([from, functions]) => [from, countedAll(functions, 'imports called', [])]));
  const { exports } = new Instance(module, wrapped);
  return { exports: countedAll(exports, 'exports called', [[/destroy|drop_slice/, 'closures destroyed']]) };
};

function countMethod(object, method, name) {
  if (typeof object?.[method] === 'function') object[method] = counted([name], object[method]);
}
countMethod(Date, 'now', 'Date.now');
countMethod(Promise.prototype, 'then', 'then');
countMethod(globalThis.ReadableStreamBYOBReader?.prototype, 'readAtLeast', 'readAtLeast');
countMethod(globalThis.ReadableStreamBYOBReader?.prototype, 'read', 'read, BYOB');
countMethod(globalThis.ReadableStreamDefaultReader?.prototype, 'read', 'read, default');
countMethod(Headers.prototype, 'get', 'Headers.get');
countMethod(globalThis, 'setTimeout', 'setTimeout');

const { log } = console;
console.log = (...args) => {
  log(...args);
  log(`counts ${JSON.stringify(totals)}`);
};
