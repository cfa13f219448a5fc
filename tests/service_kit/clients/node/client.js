// A grpc-js client for the tests. `client.js ADDRESS call /package.Service/Method HEX` prints the status, and the
// response as hex; `many … HEX N` prints how many of N calls at once were OK.
const grpc = require("@grpc/grpc-js");

const [address, verb, method, hex, count] = process.argv.slice(2);
const bytes = (buffer) => buffer;
const client = new grpc.Client(address, grpc.credentials.createInsecure());

function call() {
  const deadline = Date.now() + 20_000;
  return new Promise((resolve) =>
    client.makeUnaryRequest(method, bytes, bytes, Buffer.from(hex, "hex"), new grpc.Metadata(), { deadline }, (error, response) =>
      resolve([grpc.status[error ? error.code : 0], response ? response.toString("hex") : ""])
    )
  );
}

(async () => {
  if (verb === "call") {
    console.log((await call()).join(" "));
  } else {
    const all = await Promise.all(Array.from({ length: Number(count) }, call));
    console.log(all.filter(([status]) => status === "OK").length);
  }
  client.close();
})();
