// The SDK wants Node 22 for this one function; with it, Node 20 will do.
Promise.withResolvers ??= function () {
  let resolve;
  let reject;
  const promise = new this((yes, no) => {
    resolve = yes;
    reject = no;
  });
  return { promise, resolve, reject };
};
